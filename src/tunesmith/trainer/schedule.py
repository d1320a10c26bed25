"""The learning rate of a step: a function of its number, so a run can stop anywhere."""


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up, then linear decay from the peak that would reach zero one step after the last."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    return peak * (total_steps + 1 - step) / (total_steps - warmup_steps)
