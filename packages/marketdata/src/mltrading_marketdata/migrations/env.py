"""Run the migrations on the connection, or to the text, that migration.py gives."""

from alembic import context

given = context.config.attributes
# Outside a transaction, as building an index concurrently must be.
alone = given.get("concurrently", False)

if context.is_offline_mode():
    context.configure(
        dialect_name=given["dialect"],
        literal_binds=True,
        transactional_ddl=not alone,
        concurrently=alone,
    )
else:
    context.configure(
        connection=given["connection"],
        transactional_ddl=not alone,
        concurrently=alone,
    )

with context.begin_transaction():
    context.run_migrations()
