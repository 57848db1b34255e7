"""Why the client did not show a desktop: one class for each exit status that scripts may rely on."""

from __future__ import annotations

from appliance.errors import ApplianceError


class ClientError(ApplianceError):
    """A failure with the exit status by which it is reported; 1 where no other fits."""

    exit_status = 1


class ChoiceError(ClientError):
    """There are several desktops and none was chosen: wrong usage."""

    exit_status = 2


class CredentialsError(ClientError):
    """The server does not accept the login and password."""

    exit_status = 3


class DesktopError(ClientError):
    """There is no such desktop, or it may not be used."""

    exit_status = 4


class RefusedError(ClientError):
    """The server refused, failed, or took too long."""

    exit_status = 5


class CertificateError(ClientError):
    """The server could not prove who it is."""

    exit_status = 6


class ConnectionFailedError(ClientError):
    """The server cannot be reached, or what answers is no QVD server, or the connection broke."""

    exit_status = 7
