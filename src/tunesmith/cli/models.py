"""``tunesmith models``: list, show, delete, pull."""

from cyclopts import App, Parameter

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.objects import Model, Page
from tunesmith.core.settings import load_settings

app = App(name="models", help="List, fetch and delete models.", default_parameter=Parameter(negative=()))


@app.command(name="list")
def list_models(*, as_json: show.AsJson = False) -> None:
    """List every model that answers by name: base models, tuned models and checkpoints."""
    with Client.from_settings(load_settings()) as client:
        show.answer(client.list_models(), as_json, _show_page)


@app.command(name="show")
def show_model(name: str, *, as_json: show.AsJson = False) -> None:
    """Show one model.

    Parameters
    ----------
    name
        For instance smollm2-135m-instruct.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.retrieve_model(name), as_json, _show_model)


@app.command
def delete(name: str, *, as_json: show.AsJson = False) -> None:
    """Delete a tuned model or a checkpoint.

    Parameters
    ----------
    name
        For instance ft:smollm2-135m-instruct:tunesmith:claims-desk:Ab3dE6gH.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.delete_model(name), as_json, lambda gone: show.line(f"Deleted {gone.id}"))


@app.command
def pull(name: str = "smollm2-135m-instruct", *, as_json: show.AsJson = False) -> None:
    """Fetch a model into this machine's model store; no server is needed.

    Parameters
    ----------
    name
        A base model of the catalog, or all-minilm-l6-v2, which compares texts when data is checked.
    """
    from tunesmith.catalog.embedding import EMBEDDING_MODEL, install_embedding_model
    from tunesmith.catalog.fetch import install_base_model

    settings = load_settings()
    if name == EMBEDDING_MODEL:
        folder = install_embedding_model(settings, show.note)
    else:
        folder = install_base_model(settings, name, show.note)
    if as_json:
        show.json_object({"id": name, "folder": str(folder)})
    else:
        show.line(f"{name} is in {folder}")


def _show_model(model: Model) -> None:
    show.fields([("id", model.id), ("owned by", model.owned_by), ("created", show.moment(model.created))])


def _show_page(page: Page[Model]) -> None:
    rows = [(model.id, model.owned_by, show.moment(model.created) or "") for model in page.data]
    show.table(("id", "owned by", "created"), rows)
