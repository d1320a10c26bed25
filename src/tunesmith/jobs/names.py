"""Names of tuned models, in OpenAI's shape. The same job and step always give the same name."""

from tunesmith.core.ids import stable_id


def tuned_model_name(base_model: str, organization: str, suffix: str | None, job_id: str) -> str:
    """``ft:base:organization:suffix:8 characters``; no suffix leaves two colons."""
    return f"ft:{base_model}:{organization}:{suffix or ''}:{stable_id('', job_id, 'model', length=8)}"


def checkpoint_name(base_model: str, organization: str, suffix: str | None, job_id: str, step: int) -> str:
    """As a tuned model, with eight characters of its own and ``:ckpt-step-N``."""
    own = stable_id("", job_id, "checkpoint", step, length=8)
    return f"ft:{base_model}:{organization}:{suffix or ''}:{own}:ckpt-step-{step}"
