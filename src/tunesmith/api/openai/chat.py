"""/v1/chat/completions."""

from fastapi import APIRouter
from starlette.responses import Response

from tunesmith.api.chat.answer import ChatAnswer
from tunesmith.api.chat.payload import require_consistent
from tunesmith.api.deps import ServicesDep
from tunesmith.api.wire.chat import ChatRequest

router = APIRouter(prefix="/v1/chat", tags=["chat"])


@router.post("/completions", response_class=Response)
async def create_chat_completion(body: ChatRequest, services: ServicesDep) -> Response:
    """Answer a conversation. A model that is not loaded is loaded first; the request waits for it."""
    require_consistent(body)
    return ChatAnswer(services, body)
