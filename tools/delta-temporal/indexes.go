package main

import (
	"database/sql"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
)

// keptIndexes are the indexes of visibility that an in-memory store keeps: what Delta, its tests, schedules and the first screen of the UI search by. The schema
// has 58, and every start, end and change of attributes of a workflow writes to each. With all of them, visibility took half of the server's time in Delta's
// tests. A search by another attribute reads the namespace's workflows instead, of which memory holds some ten thousand.
var keptIndexes = []string{
	"default_idx", "by_workflow_id", "by_workflow_type", "by_status", "by_task_queue", "by_temporal_scheduled_by_id", "by_temporal_namespace_division",
	"by_keyword_01", "by_keyword_02", "by_keyword_03", // the first custom attributes
}

// dropIndexes drops the other ones, before anything is in the store.
func dropIndexes(store *config.SQL) error {
	db, err := openBeside(store)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	names, err := listIndexes(db)
	if err != nil {
		return err
	}
	for _, name := range keptIndexes {
		if !slices.Contains(names, name) {
			return fmt.Errorf("the schema of the server has no index %s of visibility", name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(keptIndexes, name) })
	if len(names) == 0 {
		return nil
	}
	_, err = db.Exec("BEGIN; DROP INDEX " + strings.Join(names, "; DROP INDEX ") + "; COMMIT")
	return err
}

// openBeside opens a connection beside those of the server.
func openBeside(store *config.SQL) (*sql.DB, error) {
	attributes := url.Values{}
	for name, value := range store.ConnectAttributes {
		attributes.Set(name, value)
	}
	db, err := sql.Open(sqlite.PluginName, "file:"+store.DatabaseName+"?"+attributes.Encode())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

func listIndexes(db *sql.DB) (names []string, err error) {
	// That of the primary key has no SQL.
	rows, err := db.Query(`SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'executions_visibility' AND sql IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}
