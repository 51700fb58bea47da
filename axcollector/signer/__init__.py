"""The signing service, `twistd axsigner`: a tenant and a path become a URL that a file can be put to, for a while."""
