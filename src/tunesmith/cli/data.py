"""``tunesmith data``: generate, resume, list, show, delete."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from tunesmith.cli import show
from tunesmith.cli.data_paths import local_file
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.ids import new_id
from tunesmith.core.settings import load_settings
from tunesmith.data.generate.request import (
    LENGTHS,
    TONES,
    Caps,
    GenerateRequest,
    Length,
    default_max_candidates,
    read_request,
    require_sound,
)

app = App(name="data", help="Make data sets with a teacher model.", default_parameter=Parameter(negative=()))

Many = Parameter(consume_multiple=True)


@app.command
def generate(
    *,
    teacher_model: str,
    rows: int,
    out: Annotated[Path, Parameter(alias="-o")],
    seeds: Annotated[list[Path] | None, Many] = None,
    documents: Annotated[list[Path] | None, Many] = None,
    topics: Annotated[list[str] | None, Many] = None,
    tones: Annotated[list[str] | None, Many] = None,
    lengths: Annotated[list[Length] | None, Many] = None,
    system: str | None = None,
    teacher_url: str | None = None,
    teacher_key_env: str | None = None,
    max_tokens: int | None = None,
    max_cost: Decimal | None = None,
    price_in: Decimal | None = None,
    price_out: Decimal | None = None,
    max_candidates: int | None = None,
    max_answer_tokens: int = 512,
    concurrency: int = 4,
    seed: int = 0,
    as_json: show.AsJson = False,
) -> int:
    """Make a data set from seed rows, documents or topics with a teacher model.

    The teacher writes messages as the plan wants them, and answers them; what is repeated, cut off or unrelated is
    dropped, with a report. Ctrl-C keeps what was answered, and `tunesmith data resume` goes on.

    Parameters
    ----------
    teacher_model
        The teacher's name for its model.
    rows
        Good rows wanted.
    out
        Write them to this file.
    seeds
        JSONL files with chats to make more of.
    documents
        Text, Markdown or PDF files to ask about.
    topics
        Topics to ask about.
    tones
        Tones to vary.
    lengths
        Lengths of the messages to vary.
    system
        System prompt of every row; left out, it is the one that most seeds have.
    teacher_url
        The teacher's address, for instance https://api.openai.com/v1; left out, it is the Tunesmith server.
    teacher_key_env
        Name of the environment variable that holds the teacher's key.
    max_tokens
        Stop before more tokens than this are spent, of prompts and answers together.
    max_cost
        Stop before more money than this is spent; needs the prices.
    price_in
        Price of a million prompt tokens; left out, it is the Tunesmith server's own where that is the teacher.
    price_out
        Price of a million answer tokens, likewise.
    max_candidates
        Candidates at most, however many are dropped; left out, twice the rows and 8.
    max_answer_tokens
        The longest answer.
    concurrency
        Calls at once.
    seed
        The same sources and seed give the same plan.
    """
    from tunesmith.cli.generating import find_prices, require_key, run_generation
    from tunesmith.data.generate.run import create_generation
    from tunesmith.data.generate.sources import read_sources
    from tunesmith.data.generate.view import generations_dir

    if out.exists():
        raise InvalidRequest(f"{out} exists already.", param="out", mend="Choose another name for the result.")
    settings = load_settings()
    request = GenerateRequest(
        id=new_id("gen-"),
        created_at=unix_now_s(),
        rows=rows,
        max_candidates=max_candidates or default_max_candidates(rows),
        seed=seed,
        teacher_model=teacher_model,
        teacher_url=teacher_url,
        key_variable=teacher_key_env,
        system=system,
        topics=tuple(topics or ()),
        tones=tuple(tones or TONES),
        lengths=tuple(lengths or LENGTHS),
        max_answer_tokens=max_answer_tokens,
        concurrency=concurrency,
        caps=Caps(max_tokens=max_tokens, max_cost=max_cost),
        prices=find_prices(settings, teacher_model, teacher_url, price_in, price_out),
        seed_files=tuple(str(path) for path in seeds or ()),
        documents=tuple(str(path) for path in documents or ()),
        out=str(out.absolute()),
    )
    require_sound(request)
    require_key(request)
    _require_files([*(seeds or []), *(documents or [])])
    folder = generations_dir(settings) / request.id
    create_generation(folder, request, read_sources(seeds or [], [(path, path.name) for path in documents or []], seed))
    return run_generation(settings, folder, as_json)


@app.command
def resume(
    generation_id: str, *, max_tokens: int | None = None, max_cost: Decimal | None = None, as_json: show.AsJson = False
) -> int:
    """Go on with a generation that was interrupted, has failed, or was ended by a cap.

    What was answered is not asked again.

    Parameters
    ----------
    generation_id
        For instance gen-abc.
    max_tokens
        A new cap on tokens, with those that are spent.
    max_cost
        A new cap on money, with what is spent.
    """
    from tunesmith.cli.generating import require_key, run_generation
    from tunesmith.data.generate.view import find_generation, require_resumable, view_generation

    settings = load_settings()
    folder = find_generation(settings, generation_id)
    caps = Caps(max_tokens=max_tokens, max_cost=max_cost)
    request = read_request(folder)
    if request.out is None:
        raise InvalidRequest(f"{generation_id} belongs to a server.", mend="Resume it through the server's API.")
    require_resumable(view_generation(folder), caps)
    require_key(request)
    return run_generation(settings, folder, as_json, caps)


@app.command(name="list")
def list_generations(*, as_json: show.AsJson = False) -> None:
    """List the generations in this machine's home, newest first."""
    from tunesmith.data.generate.view import list_generations as folders
    from tunesmith.data.generate.view import view_generation

    views = sorted(map(view_generation, folders(load_settings())), key=lambda view: -view.request.created_at)
    if as_json:
        show.json_object(views)
        return
    rows = [
        (
            view.request.id,
            view.status,
            view.request.teacher_model,
            f"{view.num_complete}/{view.num_planned}",
            show.moment(view.request.created_at) or "",
        )
        for view in views
    ]
    show.table(("id", "status", "teacher", "candidates", "created"), rows)


@app.command(name="show")
def show_generation(generation_id: str, *, as_json: show.AsJson = False) -> None:
    """Show where a generation stands, and its report.

    Parameters
    ----------
    generation_id
        For instance gen-abc.
    """
    from tunesmith.cli.generating import money, show_drops
    from tunesmith.data.generate.view import find_generation, view_generation

    view = view_generation(find_generation(load_settings(), generation_id))
    if as_json:
        show.json_object(view)
        return
    show.fields(
        [
            ("id", view.request.id),
            ("status", view.status),
            ("stopped by", view.stopped_by),
            ("teacher", view.request.teacher_model),
            ("candidates", f"{view.num_complete} of {view.num_planned}"),
            ("tokens", f"{view.usage.total_tokens:,}"),
            ("cost", money(view.request, view.usage.cost) if view.request.prices.are_given else None),
            ("out", view.request.out),
            ("file", view.file_id),
            ("error", view.error.message if view.error else None),
        ]
    )
    if view.report is not None:
        show_drops(view.report)


@app.command(name="delete")
def delete_generation(generation_id: str) -> None:
    """Delete a generation: its answers, its report, and its copies of seeds and documents.

    The rows that it has written, or the file that it has become, stay.

    Parameters
    ----------
    generation_id
        For instance gen-abc.
    """
    from tunesmith.data.generate.view import delete_generation as delete
    from tunesmith.data.generate.view import find_generation

    delete(find_generation(load_settings(), generation_id))
    show.line(f"{generation_id} is deleted.")


def _require_files(paths: list[Path]) -> None:
    for path in paths:
        local_file(str(path))
