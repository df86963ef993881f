"""jaxbench: which sequence backbone should I use?"""

__version__ = "0.1.0"
