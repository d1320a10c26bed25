"""Every rule of the doctor: a stable id, how bad it is, why it matters, how to mend it.

Ids are the cookbook's where it has one ("Data preparation and analysis for chat model fine-tuning"). An id is never
given another meaning. docs/reference/doctor-rules.md has a heading for each; a test keeps it so.
"""

from tunesmith.data.content.rules import CONTENT_RULES
from tunesmith.data.rule import FixName, Rule, Severity
from tunesmith.data.rule import make_rule as _rule
from tunesmith.data.sets.rules import SETS_RULES

__all__ = ["RULES", "FixName", "Rule", "Severity"]

_UNREADABLE = "A row that cannot be read cannot be trained on."
_HALF_READ = "Programs read such a line differently, or not at all: what is trained would be chance."

_READING = (
    _rule(
        "invalid_json", "error", "Not valid JSON", _UNREADABLE, "Write one complete JSON object per line.", "drop_rows"
    ),
    _rule(
        "data_type",
        "error",
        "Not a JSON object",
        _UNREADABLE,
        'Each line must look like {"messages": [...]}.',
        "drop_rows",
    ),
    _rule("not_utf8", "error", "Not UTF-8", _UNREADABLE, "Save the file as UTF-8.", "drop_rows"),
    _rule("compressed_file", "error", "Not a text file", _UNREADABLE, "Give it uncompressed, as JSON lines."),
    _rule(
        "not_json_lines",
        "error",
        "Not one JSON object per line",
        _UNREADABLE,
        'Write the rows as lines of their own, each like {"messages": [...]}.',
    ),
    _rule(
        "line_too_long", "error", "Line too long", _UNREADABLE, "Write one row per line; split the row.", "drop_rows"
    ),
    _rule("duplicate_key", "error", "Duplicate key", _HALF_READ, "Keep one of the values.", "drop_rows"),
    _rule("nan_or_infinity", "error", "NaN or Infinity", _HALF_READ, "Write null, or a number.", "drop_rows"),
    _rule("huge_number", "error", "Number too large", _HALF_READ, "Write it as a string.", "drop_rows"),
    _rule(
        "lone_surrogate",
        "error",
        "Half a character",
        _HALF_READ,
        "Write the whole character; cut texts between characters, not within one.",
        "drop_rows",
    ),
    _rule("deep_nesting", "error", "Nested too deeply", _UNREADABLE, "Flatten it, or write it as text.", "drop_rows"),
    _rule(
        "blank_line",
        "hint",
        "Blank line",
        "It is skipped, so that line numbers and row numbers differ; elsewhere it may be refused.",
        "Remove it.",
    ),
)

_NO_ROW = "The row cannot be rendered, so nothing of it would be learned."
_NO_LESSON = "Only what the assistant says is learned, and only when it is said last."
_OTHER_KEYS = "OpenAI and Azure refuse keys that they do not know, and a key in the wrong place would have no effect."
_TOOL_PAIRS = "Chat templates and the API take a tool's result only as the answer to its call."
_CALL_TAUGHT = "A model learns to call exactly as the rows do: such a call would fail in use."

_STRUCTURE = (
    _rule(
        "missing_messages_list",
        "error",
        "No list of messages",
        _NO_ROW,
        'Each line must look like {"messages": [...]}.',
        "drop_rows",
    ),
    _rule(
        "wrong_type",
        "error",
        "Value of a wrong type",
        _NO_ROW,
        "Give the value the type that is expected.",
        "drop_rows",
    ),
    _rule("unrecognized_key", "error", "Extra key in a row", _OTHER_KEYS, "Remove the key.", "drop_rows"),
    _rule("missing_key", "error", "Key missing in a row", _NO_ROW, "Add the key.", "drop_rows"),
    _rule(
        "message_missing_key",
        "error",
        "Key missing in a message",
        _NO_ROW,
        'A message looks like {"role": "user", "content": "..."}.',
        "drop_rows",
    ),
    _rule("message_unrecognized_key", "error", "Extra key in a message", _OTHER_KEYS, "Remove the key.", "drop_rows"),
    _rule(
        "unrecognized_role",
        "error",
        "Unknown role",
        _NO_ROW,
        "Use one of system, developer, user, assistant, tool, function.",
        "normalise_roles",
    ),
    _rule(
        "missing_content",
        "error",
        "Message without content",
        _NO_ROW,
        "Give content, or a tool call for an assistant message.",
        "drop_rows",
    ),
    _rule(
        "empty_messages",
        "error",
        "No messages",
        _NO_ROW,
        "Give at least one user and one assistant message.",
        "drop_rows",
    ),
    _rule(
        "example_missing_assistant_message",
        "error",
        "No assistant message",
        _NO_LESSON,
        "End the conversation with the answer you want.",
        "drop_rows",
    ),
    _rule(
        "last_message_not_assistant",
        "error",
        "Last message not from the assistant",
        _NO_LESSON,
        "End the conversation with the answer you want.",
        "drop_rows",
    ),
    _rule(
        "last_message_not_user",
        "error",
        "Prompt does not end with the user",
        "In reinforcement the model writes the answer; the row gives only what comes before.",
        "End the messages with the user's.",
        "drop_rows",
    ),
    _rule(
        "nothing_trained",
        "error",
        "Nothing to learn",
        _NO_LESSON,
        "Remove the weight of the answer you want, or the row.",
        "drop_rows",
    ),
    _rule(
        "empty_assistant_message",
        "error",
        "Empty answer",
        "The model would learn to say nothing.",
        "Give the answer, or set weight 0.",
        "drop_rows",
    ),
    _rule(
        "invalid_weight",
        "error",
        "weight out of place",
        "weight says whether an assistant message is learned (1) or only context (0); elsewhere it means nothing.",
        "Remove it, or write 0 or 1 on an assistant message.",
        "drop_rows",
    ),
    _rule(
        "image_content",
        "error",
        "Image in a row",
        "No vision model is in the catalog: the image would not be seen.",
        "Describe the image in text, or leave the row out.",
        "drop_rows",
    ),
    _rule(
        "unsupported_content_part",
        "error",
        "Content that is not text",
        "The models read text only: the part would not be seen.",
        'Write the content as a string, or as parts like {"type": "text", "text": "..."}.',
        "drop_rows",
    ),
    _rule(
        "misplaced_role",
        "error",
        "Role out of place",
        "The outputs are the model's own: the assistant's messages and its tools' results.",
        "Move the message into input.messages.",
        "drop_rows",
    ),
    _rule(
        "misplaced_tool_calls",
        "error",
        "Tool call not by the assistant",
        _TOOL_PAIRS,
        "Only assistant messages have tool_calls or function_call.",
        "drop_rows",
    ),
    _rule(
        "missing_tool_call_id",
        "error",
        "Tool message without tool_call_id",
        _TOOL_PAIRS,
        "Give the id of the call that it answers.",
        "drop_rows",
    ),
    _rule(
        "unknown_tool_call_id",
        "error",
        "Tool message that answers no call",
        _TOOL_PAIRS,
        "Give the id of a call in the assistant message before, each once.",
        "drop_rows",
    ),
    _rule(
        "unanswered_tool_call",
        "error",
        "Tool call without a result",
        _TOOL_PAIRS,
        "Put a tool message with this tool_call_id behind the call.",
        "drop_rows",
    ),
    _rule(
        "duplicate_tool_call_id", "warning", "Tool calls with one id", _TOOL_PAIRS, "Give each call an id of its own."
    ),
    _rule(
        "tool_arguments_not_json",
        "error",
        "Tool arguments are not JSON",
        _CALL_TAUGHT,
        'Write the arguments as a JSON object in a string, like "{\\"city\\": \\"Oslo\\"}".',
        "drop_rows",
    ),
    _rule(
        "tool_arguments_mismatch",
        "warning",
        "Tool arguments do not match their schema",
        _CALL_TAUGHT,
        "Correct the arguments or the tool's parameters.",
    ),
    _rule(
        "undeclared_tool",
        "warning",
        "Call of an undeclared tool",
        "A model learns to call functions that it was not offered.",
        "Add the function to the row's tools.",
    ),
    _rule(
        "invalid_tool",
        "error",
        "Malformed tool",
        _NO_ROW,
        'Write {"type": "function", "function": {"name": "...", "parameters": {...}}}, each name once.',
        "drop_rows",
    ),
    _rule(
        "invalid_tool_schema",
        "warning",
        "Parameters are no JSON schema",
        "Arguments cannot be checked, and a server that constrains them will refuse the tool.",
        'Write parameters as a JSON schema: {"type": "object", "properties": {...}}.',
    ),
    _rule("too_many_tools", "error", "Too many tools", "A request takes 128 tools.", "Leave out what is not called."),
    _rule(
        "too_many_messages",
        "warning",
        "Too many messages",
        "A chat request takes 2,048 messages: such a conversation does not come in use.",
        "Split the conversation.",
    ),
    _rule(
        "parallel_calls_off",
        "warning",
        "Parallel calls where they are off",
        "The row says that calls are made one at a time, and shows the opposite.",
        "Remove parallel_tool_calls, or make the calls one after the other.",
    ),
    _rule(
        "same_outputs",
        "warning",
        "Preferred and other output are the same",
        "A pair teaches by its difference.",
        "Change one of the outputs, or leave the row out.",
        "drop_rows",
    ),
    _rule(
        "mixed_kinds",
        "error",
        "Row of another kind",
        "A job trains on one kind of rows: chats, preference pairs, prompts for reinforcement, or completions.",
        "Put rows of each kind into a file of their own.",
        "drop_rows",
    ),
    _rule(
        "kind_not_trainable",
        "error",
        "Rows that no job here trains on",
        "Jobs are supervised: they train on conversations, or on prompts with their completions.",
        'Write what should be learned as {"messages": [...]}, the answer last; of a pair the preferred one.',
    ),
    _rule(
        "inconsistent_keys",
        "warning",
        "Keys differ between rows",
        "OpenAI expects the same top-level keys through a file; a key in some rows only is often an export's fault.",
        "Give the key in every row, or in none.",
    ),
    _rule(
        "missing_user_message",
        "warning",
        "No user message",
        "In use a user asks first: the model learns answers to a question that it never saw.",
        "Add the question.",
    ),
    _rule(
        "missing_system_message",
        "hint",
        "No system message",
        "A tuned model does best with the system prompt that it was trained with; without one, use it without one.",
        "Add the system prompt that you will use, or use none.",
    ),
)

_TOKENS = (
    _rule(
        "over_context",
        "error",
        "Longer than the model's context",
        "Elsewhere such a row is cut at its end, and the answer is what is lost. Here it is refused.",
        "Shorten or split the conversation.",
        "drop_rows",
    ),
    _rule(
        "template_refuses_row",
        "error",
        "The chat template refuses the row",
        _NO_ROW,
        "Give the roles and their order that the model's chat template takes, or choose another model.",
        "drop_rows",
    ),
    _rule(
        "completion_for_chat_model",
        "error",
        "Prompt with a completion, for a chat model",
        "A chat model reads messages: somebody must say that the prompt is the user's and the completion its own.",
        'Choose it in the job, "tunesmith": {"completions": "chat"}, and on the command line, --completions chat; or '
        'write the rows as {"messages": [...]}.',
    ),
    _rule(
        "zero_supervised_tokens",
        "error",
        "No token of the answer is learned",
        "The model would learn to say nothing.",
        "Look at the row's preview; write the answer in characters that the tokenizer knows.",
        "drop_rows",
    ),
    _rule(
        "double_bos",
        "warning",
        "Two starts of a text",
        "The chat template sets the start itself; a second one is never seen in use, and costs quality.",
        "Remove the start token from the text.",
    ),
    _rule(
        "template_tokens_in_content",
        "warning",
        "Special token inside a text",
        "The tokenizer reads it as the special token itself: it can end a turn or begin another one in the middle.",
        "Remove it: rows hold texts, the chat template adds what stands between them.",
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in (*_READING, *_STRUCTURE, *_TOKENS, *CONTENT_RULES, *SETS_RULES)}
