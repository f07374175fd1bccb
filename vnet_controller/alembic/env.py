"""What alembic runs: it works on the connection that it is given, in that one's transaction."""

from alembic import context

from vnet_controller.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
context.run_migrations()
