// Starts Dash. A file of its own, so that the page needs no inline script.
window.renderer = new DashRenderer();
