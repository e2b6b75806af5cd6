"""What LangChain makes of the application at BASE_URL; prints it as JSON. It runs in the
environment of tools.lock, without Fairlane."""

import asyncio
import json
import os

from langchain_openai import ChatOpenAI
from openai import AuthenticationError

ASKED = {"model": "tiny", "base_url": os.environ["BASE_URL"], "max_tokens": 12, "max_retries": 0}
model = ChatOpenAI(**ASKED, api_key=os.environ["KEY"], stream_usage=True)

answer = model.invoke([("system", "Be short."), ("user", "Hello")])
chunks = list(model.stream("Hello"))
whole = chunks[0]
for chunk in chunks[1:]:
    whole += chunk


async def several() -> list[int]:
    """At once, as chains do."""
    answers = await model.abatch(["a", "b", "c"])
    return [answer.usage_metadata["output_tokens"] for answer in answers]


try:
    ChatOpenAI(**ASKED, api_key="sk-wrong").invoke("Hello")
    refusal = "was answered"
except AuthenticationError as error:
    refusal = error.status_code
print(
    json.dumps(
        {
            "content": answer.content,
            "usage": answer.usage_metadata,
            "chunks": len(chunks),
            "streamed": whole.usage_metadata,
            "several": asyncio.run(several()),
            "refusal": refusal,
        }
    )
)
