"""Pages: `layout(view, data, scheme)`, and `register(app, data)` for callbacks."""
