package db

// SchemaVersion is the schema that this code is written for: delta_installation has it as schema_version.
const SchemaVersion = 1
