"""What the Pulumi engine runs for the plugin `notifying-postgres`, so that stacks in every language have its resources."""

from notifying_postgres.plugin import main

if __name__ == "__main__":
    main()
