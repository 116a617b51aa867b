// Says that what a page shows is old, for as long as the server is away or refuses to renew it. It goes on asking.
"use strict";

function tell(isStale) {
  document.getElementById("stale").hidden = !isStale;
}

document.addEventListener("htmx:after:request", (event) => tell(event.detail.ctx.response.status >= 400));
document.addEventListener("htmx:error", () => tell(true));
