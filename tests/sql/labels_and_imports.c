/* What two DDL commands need that PostgreSQL does not bring along: a provider of security labels, and a foreign-data wrapper. */
#include "postgres.h"

#include "commands/seclabel.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

static void
allow(const ObjectAddress *object, const char *label)
{
}

void
_PG_init(void)
{
	register_label_provider("sample", allow);
}

static List *
import(ImportForeignSchemaStmt *statement, Oid server)
{
	return list_make1(psprintf("CREATE FOREIGN TABLE imported (id int) SERVER %s", quote_identifier(statement->server_name)));
}

PG_FUNCTION_INFO_V1(handler);

Datum
handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->ImportForeignSchema = import;
	PG_RETURN_POINTER(routine);
}
