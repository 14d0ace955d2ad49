package deltatest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chariot-giving/delta/internal/testdb"
	"github.com/chariot-giving/delta/migrations"
)

// templateSchema is the schema of Delta's tables in the template.
const templateSchema = "delta_template"

// openPool makes the test's database, a copy of the migrated template, and connects to it.
func (env *Env) openPool(ctx context.Context, o options) (err error) {
	template, err := templateName(migrations.FS)
	if err != nil {
		return err
	}
	if err := env.server.Copy(ctx, env.Schema, testdb.Template{Name: template, Fill: migrateTemplate}); err != nil {
		return fmt.Errorf("creating a database for this test (the user needs CREATEDB): %w", err)
	}
	defer func() {
		if err != nil {
			_, _ = env.server.Drop(context.WithoutCancel(ctx), env.Schema)
		}
	}()
	config, err := pgxpool.ParseConfig(env.DatabaseURL)
	if err != nil {
		return err
	}
	config.MaxConns = o.maxConns
	if env.Pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("opening the pool: %w", err)
	}
	if err := makeOwn(ctx, env.Pool, env.Schema); err != nil {
		env.Pool.Close()
		return fmt.Errorf("preparing the database of this test: %w", err)
	}
	return nil
}

// templateName names the template by its migrations. An external server may have templates of other versions.
func templateName(files fs.FS) (string, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		sum.Write(fmt.Appendf(nil, "%s %d\n%s", name, len(text), text))
	}
	return "delta_template_" + hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

func migrateTemplate(ctx context.Context, pool *pgxpool.Pool) error {
	config := pool.Config()
	config.ConnConfig.RuntimeParams["search_path"] = templateSchema
	there, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer there.Close()
	if _, err := there.Exec(ctx, "CREATE SCHEMA "+templateSchema); err != nil {
		return err
	}
	return migrations.Up(ctx, there)
}

// makeOwn makes an installation of its own of a copy of the template: with an identity, with what ids are hashed with, and in a schema with a name of its own.
func makeOwn(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	return pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Conn().PgConn().Exec(ctx, fmt.Sprintf(`ALTER SCHEMA %[1]s RENAME TO %[2]s;
			DELETE FROM %[2]s.delta_installation; INSERT INTO %[2]s.delta_installation DEFAULT VALUES`, templateSchema, schema)).ReadAll()
		return err
	})
}

// withDatabase changes a URL, or a string of keywords and values: every connection gets the database, which is also its search path and its application name.
func withDatabase(databaseURL, name string) (string, error) {
	if !strings.HasPrefix(databaseURL, "postgres://") && !strings.HasPrefix(databaseURL, "postgresql://") {
		return fmt.Sprintf("%[1]s dbname=%[2]s search_path=%[2]s application_name=%[2]s", databaseURL, name), nil
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", errors.New("the database URL cannot be read") // url.Parse's error would show the password
	}
	query := u.Query()
	query.Del("dbname") // both come before the path
	query.Del("database")
	query.Set("search_path", name)
	query.Set("application_name", name)
	u.Path, u.RawQuery = "/"+name, query.Encode()
	return u.String(), nil
}
