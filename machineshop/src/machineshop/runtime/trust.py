"""How a replica's programs are told which authorities to trust, so that they reach a platform with one of its own."""

from pathlib import PurePath

# OpenSSL and with it Python, httpx and aiohttp; requests; curl; Node.
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def trust_variables(bundle: PurePath) -> dict[str, str]:
    """The environment variables that name the bundle.

    Args:
        bundle: The file, by the path that the replica sees it at. It holds the system's authorities too: most programs
            trust those in it instead of the system's.
    """
    return dict.fromkeys(VARIABLES, str(bundle))
