"""/v1/chat/completions."""

from fastapi import APIRouter
from starlette.responses import Response

from tunesmith.api.chat.answer import ChatAnswer
from tunesmith.api.deps import ServicesDep
from tunesmith.api.wire.chat import ChatRequest

router = APIRouter(prefix="/v1/chat", tags=["chat"])


@router.post("/completions", response_class=Response)
async def create_chat_completion(body: ChatRequest, services: ServicesDep) -> Response:
    """Answer a conversation. A model that is not loaded is loaded first; the request waits for it."""
    return ChatAnswer(services, body)
