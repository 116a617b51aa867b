"""The one version: of the package, the command line and the API's description."""

VERSION = "0.1.0"
