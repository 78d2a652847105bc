"use strict";

// Sends the browser's time zone to the server in a cookie (see commerce/admin_site/middleware.py).
{
  const admin = location.pathname.split("/")[1];
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  document.cookie = `timezone=${encodeURIComponent(zone)}; path=/${admin}/; max-age=31536000; samesite=lax`;
}
