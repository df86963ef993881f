"""Constants of HiPPO-LegS, in float64 on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hippo_legs_matrix(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The dense A [N, N] and B [N] of HiPPO-LegS.

    A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it, 0 above;
    B_n = sqrt(2n+1) (Gu et al. 2020, arXiv 2008.07669, theorem 2, in the symmetric
    scaling of Gu et al. 2021, arXiv 2111.00396, equation 2).
    """
    n = np.arange(size, dtype=np.float64)
    root = np.sqrt(2 * n + 1)
    return -np.tril(np.outer(root, root), -1) - np.diag(n + 1), root


def hippo_legs_nplr(
    size: int,
) -> tuple[
    NDArray[np.complex128],
    NDArray[np.complex128],
    NDArray[np.complex128],
    NDArray[np.complex128],
]:
    """HiPPO-LegS as normal plus low rank, one half of the conjugate pairs.

    A = V diag(lambda) V* - p p* with p_n = sqrt(n + 1/2) before the rotation: A + p p*
    is -1/2 plus a skew-symmetric matrix (arXiv 2111.00396, appendix C.1). The skew
    part times -i is Hermitian, so `eigh` gives V unitary and Re(lambda) = -1/2 exactly.

    Args:
      size: N, even.

    Returns:
      lambda [N/2], Im > 0, ascending; p = V* p and b = V* B [N/2]; V [N, N/2].
    """
    if size < 2 or size % 2:
        raise ValueError(f"HiPPO-LegS in conjugate halves needs an even size, {size=}")
    a, b = hippo_legs_matrix(size)
    p = np.sqrt(np.arange(size) + 0.5)
    normal = a + np.outer(p, p)
    skew = (normal - normal.T) / 2
    frequency, vectors = np.linalg.eigh(-1j * skew)
    half = size // 2
    v = vectors[:, half:].astype(np.complex128)
    poles = (-0.5 + 1j * frequency[half:]).astype(np.complex128)
    return poles, v.conj().T @ p, v.conj().T @ b, v
