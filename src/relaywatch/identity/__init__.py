"""Who is behind an address or a uid at a time: joins the sources' views of one connection to device, app and user."""
