package delta

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta/deltatype"
)

// ObjectCodec encodes objects before they are stored; see [deltatype.ObjectCodec] for what its methods must do.
type ObjectCodec = deltatype.ObjectCodec

// ErrObjectCodec is wrapped in errors of a client whose Config.ObjectCodec and ObjectHashKey do not agree with those of the
// other clients of the database.
var ErrObjectCodec = db.ErrObjectCodec

// minHashKeyBytes is the least size of Config.ObjectHashKey.
const minHashKeyBytes = 32

// rowOf returns a row as the public type, with its object decoded.
func (c *Client) rowOf(ctx context.Context, stored *db.Resource) (*deltatype.ResourceRow, error) {
	row, err := stored.Row()
	if err == nil {
		c.decodeRow(ctx, row)
	}
	return row, err
}

// decodeRow decodes the object of a row. If that fails, the row keeps the stored form, which [deltatype.IsEncoded] tells:
// the rest of the row is of use, such as for the console of a client without the codec.
func (c *Client) decodeRow(ctx context.Context, row *deltatype.ResourceRow) {
	_ = c.coder.DecodeRow(ctx, row)
}

// decodeVersion decodes an object of the log of changes.
func (c *Client) decodeVersion(ctx context.Context, kind, objectID string, stored json.RawMessage) (json.RawMessage, error) {
	if stored == nil {
		return nil, nil
	}
	return c.coder.Decode(ctx, Ref{Kind: kind, ObjectID: objectID}, stored)
}

// decodeChange decodes the objects of an entry of the log of changes. Those that do not decode keep the stored form.
func (c *Client) decodeChange(ctx context.Context, change *Change) error {
	for _, version := range []*json.RawMessage{&change.Before, &change.After} {
		object, err := c.decodeVersion(ctx, change.Kind, change.ObjectID, *version)
		if err != nil {
			return fmt.Errorf("entry %d, of %s/%s: %w", change.ID, change.Kind, change.ObjectID, err)
		}
		*version = object
	}
	return nil
}
