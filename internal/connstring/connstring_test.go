package connstring

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

func TestAReasonHasNoPartOfTheString(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:a@pl4nted@127.0.0.1:x/x":                        "invalid port",
		"postgres://u:pl4nted@[::1/x":                                 "failed to parse as URL",
		"postgres://u:%zzpl4nted@127.0.0.1/x":                         "failed to parse as URL",
		"postgres://u:a/pl4nted@127.0.0.1/x":                          "invalid port",
		"postgres://u:pl4nted@127.0.0.1/x?sslmode=wrong":              "failed to configure TLS: sslmode is invalid",
		"host=127.0.0.1 password='a pl4nted":                          "failed to parse as keyword/value",
		"host=127.0.0.1 pool_max_conns=many password=pl4nted":         "cannot parse pool_max_conns",
		"postgres://u:pl4nted@127.0.0.1/x?pool_max_conn_lifetime=`: ": "cannot parse pool_max_conn_lifetime",
	} {
		_, err := pgxpool.ParseConfig(text)
		require.Error(t, err, text)
		require.Equal(t, want, DescribeError(err).Error(), "%v", err)
	}
}
