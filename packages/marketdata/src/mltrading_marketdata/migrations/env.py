"""Run the migrations on the connection that migration.py hands over."""

from alembic import context

connection = context.config.attributes.get("connection")

if context.is_offline_mode():
    context.configure(
        dialect_name=context.config.attributes["dialect"], literal_binds=True
    )
else:
    context.configure(connection=connection)

with context.begin_transaction():
    context.run_migrations()
