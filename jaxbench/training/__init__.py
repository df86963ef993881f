"""From a model and a task to a trained model: state, step, loop, checkpoints."""
