"""Models through the official SDK: base, tuned and checkpoints; the tuned ones answer, and can be deleted."""

import openai
import pytest
from job_steps import MODEL
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob


def ask(client: OpenAI, model: str) -> str | None:
    """Greedy answer's fingerprint."""
    messages = [{"role": "user", "content": "code 3"}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=4)  # type: ignore[arg-type]
    assert answer.model == model
    return answer.system_fingerprint


def test_the_base_model_is_listed_and_stays(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete(MODEL)


def test_tuned_models_and_checkpoints_answer_by_name_until_deleted(client: OpenAI, tuned: FineTuningJob) -> None:
    assert tuned.fine_tuned_model is not None
    first = list(client.fine_tuning.jobs.checkpoints.list(tuned.id))[-1].fine_tuned_model_checkpoint
    names = [tuned.fine_tuned_model, first]
    assert set(names) <= {model.id for model in client.models.list()}
    assert client.models.retrieve(tuned.fine_tuned_model).owned_by == "acme"
    fingerprints = [ask(client, name) for name in [MODEL, *names]]
    assert len(set(fingerprints)) == 3
    assert client.models.delete(first).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(first)
    with pytest.raises(openai.NotFoundError):
        ask(client, first)
    with pytest.raises(openai.NotFoundError):
        client.models.delete(first)
    assert ask(client, tuned.fine_tuned_model) == fingerprints[1]
    assert first not in [
        item.fine_tuned_model_checkpoint for item in client.fine_tuning.jobs.checkpoints.list(tuned.id)
    ]


@pytest.mark.parametrize("name", ["none", "ft:smollm2:acme::none", "org/name"])
def test_an_unknown_model(client: OpenAI, name: str) -> None:
    for call in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError) as missing:
            call(name)
        assert missing.value.code == "model_not_found"
