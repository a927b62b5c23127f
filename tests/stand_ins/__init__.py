"""The stand-ins of toolchain/, which serve where Pulumi's plugins and Docker's images cannot be downloaded."""
