"""Caps on tokens and money, looked at before each call: a call goes out only if all that is out fits under them."""

from decimal import Decimal

from tunesmith.core.errors import InvalidRequest
from tunesmith.data.generate.journal import StoppedBy
from tunesmith.data.generate.request import Caps, Prices, plain
from tunesmith.data.generate.state import Spending, State

Tokens = tuple[int, int]
"""(prompt tokens, completion tokens)."""


class Budget:
    """What may be spent. Calls in flight count at about the most they can take; lost calls count as spent."""

    def __init__(self, caps: Caps, prices: Prices, state: State):
        self._caps = caps
        self._prices = prices
        self._state = state
        self._held: dict[int, Tokens] = {}

    def hold(self, slot: int, most: Tokens) -> StoppedBy | None:
        """Set aside what a slot's missing calls can take, in the place of what it held; the cap that forbids it, else
        None. To be asked before every try: one that was lost has been spent."""
        prompt_tokens, completion_tokens = self._committed(slot, most)
        if self._caps.max_tokens is not None and prompt_tokens + completion_tokens > self._caps.max_tokens:
            return "tokens"
        cost = self._prices.cost(prompt_tokens, completion_tokens)
        if self._caps.max_cost is not None and cost > self._caps.max_cost:
            return "cost"
        self._held[slot] = most
        return None

    def release(self, slot: int) -> None:
        del self._held[slot]

    def require_room(self, most: Tokens) -> None:
        """Raises InvalidRequest when not even one candidate fits under the caps as they stand."""
        cap = self.hold(-1, most)
        if cap is None:
            self.release(-1)
            return
        cost = self._prices.cost(*most)
        needed = plain(cost) if cap == "cost" else f"{sum(most):,} tokens"
        raise InvalidRequest(
            f"max_{cap} leaves no room for one candidate, which may take {needed}.",
            param=f"max_{cap}",
            code="cap_too_small",
            mend="Raise the cap, or lower max_answer_tokens.",
        )

    def _committed(self, slot: int, most: Tokens) -> Tokens:
        spending = self._state.spending
        held = [most, *(tokens for other, tokens in self._held.items() if other != slot)]
        return (
            spending.prompt_tokens + spending.lost_prompt_tokens + sum(tokens[0] for tokens in held),
            spending.completion_tokens + spending.lost_completion_tokens + sum(tokens[1] for tokens in held),
        )


def spent_tokens(spending: Spending) -> int:
    """With those of lost calls."""
    return (
        spending.prompt_tokens
        + spending.completion_tokens
        + spending.lost_prompt_tokens
        + spending.lost_completion_tokens
    )


def spent_cost(spending: Spending, prices: Prices) -> Decimal:
    """With that of lost calls."""
    return prices.cost(
        spending.prompt_tokens + spending.lost_prompt_tokens,
        spending.completion_tokens + spending.lost_completion_tokens,
    )
