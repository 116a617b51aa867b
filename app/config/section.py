"""What all sections of the settings have in common."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Section(BaseSettings):
    """Settings from environment variables with the prefix `WORKSPACES_`.

    The text of each is also its comment in `.env.example` and its row in the documentation.
    """

    # Errors must not quote their input, which may contain passwords.
    model_config = SettingsConfigDict(
        env_prefix="WORKSPACES_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )
