"""Which class fronts which kind of provider account: the one list of them."""

from trunkline.base.ports import Clock
from trunkline.node.config_providers import (
    AnthropicEngine,
    AzureEngine,
    BedrockEngine,
    GeminiEngine,
    OpenAIEngine,
    ProviderEngine,
)
from trunkline.node.core import presets
from trunkline.node.provider_anthropic import AnthropicChat
from trunkline.node.provider_bedrock import BedrockChat
from trunkline.node.provider_gemini import GeminiChat
from trunkline.node.translated import Caller
from trunkline.remote.anthropic import AnthropicCaller
from trunkline.remote.azure import AzureCaller
from trunkline.remote.bedrock import BedrockCaller
from trunkline.remote.gemini import GeminiCaller
from trunkline.remote.provider import ProviderCaller
from trunkline.remote.sigv4 import Credentials
from trunkline.remote.transport import Transport


def caller(
    settings: ProviderEngine, transport: Transport, api_key: str | None, clock: Clock
) -> Caller:
    """The account that ``settings`` describe. Raises :class:`MalformedError` for a bad base URL."""
    match settings:
        case OpenAIEngine():
            return ProviderCaller(
                transport,
                settings.url,
                api_key,
                clock=clock,
                timeouts=settings.timeouts,
                windows=presets.of(settings.preset).windows,
            )
        case AnthropicEngine():
            anthropic = AnthropicCaller(
                transport, settings.base_url, api_key, clock=clock, timeouts=settings.timeouts
            )
            return AnthropicChat(anthropic, clock=clock, max_tokens=settings.max_tokens)
        case GeminiEngine():
            gemini = GeminiCaller(
                transport, settings.base_url, api_key, clock=clock, timeouts=settings.timeouts
            )
            return GeminiChat(gemini, clock=clock)
        case AzureEngine():
            return AzureCaller(
                transport,
                settings.base_url,
                api_key,
                clock=clock,
                api_version=settings.api_version,
                timeouts=settings.timeouts,
            )
        case BedrockEngine():
            key = api_key or ""
            bedrock = BedrockCaller(
                transport,
                settings.url,
                Credentials.parse(key) if settings.auth == "signature" else key,
                region=settings.region,
                clock=clock,
                timeouts=settings.timeouts,
            )
            return BedrockChat(bedrock, clock=clock)
