package messagedb

import "context"

// ServerNames asks the server's own functions about names. [StreamName] and [Hash64] give the same answers without a round
// trip; use this to check that they do.
type ServerNames struct{ client *Client }

// ServerNames asks the server's own functions about names.
func (c *Client) ServerNames() ServerNames { return ServerNames{client: c} }

func (s ServerNames) askServer(ctx context.Context, function, sql, name string, answer any) error {
	if err := validText(FieldStream, name); err != nil {
		return err
	}
	return s.client.queryValue(ctx, call{doing: "asking for " + function + " of", stream: StreamName(shortenText(name))}, sql, answer, name)
}

// ID is the server's id function. ok is false where it returns NULL.
func (s ServerNames) ID(ctx context.Context, name string) (id string, ok bool, err error) {
	var answer *string
	err = s.askServer(ctx, "id", s.client.sql.id, name, &answer)
	return emptyIfNull(answer), answer != nil, err
}

// CardinalID is the server's cardinal_id function. ok is false where it returns NULL.
func (s ServerNames) CardinalID(ctx context.Context, name string) (id string, ok bool, err error) {
	var answer *string
	err = s.askServer(ctx, "cardinal_id", s.client.sql.cardinalID, name, &answer)
	return emptyIfNull(answer), answer != nil, err
}

// Category is the server's category function.
func (s ServerNames) Category(ctx context.Context, name string) (category string, err error) {
	err = s.askServer(ctx, "category", s.client.sql.category, name, &category)
	return category, err
}

// IsCategory is the server's is_category function.
func (s ServerNames) IsCategory(ctx context.Context, name string) (is bool, err error) {
	err = s.askServer(ctx, "is_category", s.client.sql.isCategory, name, &is)
	return is, err
}

// Hash64 is the server's hash_64 function.
func (s ServerNames) Hash64(ctx context.Context, value string) (hash int64, err error) {
	err = s.askServer(ctx, "hash_64", s.client.sql.hash, value, &hash)
	return hash, err
}

func emptyIfNull(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
