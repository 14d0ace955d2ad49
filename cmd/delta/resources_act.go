package main

import (
	"context"
	"fmt"

	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/internal/wording"
)

// actionJSON says what became of the resources that were named.
type actionJSON struct {
	Action    string         `json:"action"`
	DryRun    bool           `json:"dry_run,omitempty"`
	Count     int            `json:"count"`
	Resources []resourceJSON `json:"resources"`
	Failed    []failedJSON   `json:"failed"`
}

type failedJSON struct {
	Kind     string `json:"kind"`
	ObjectID string `json:"object_id"`
	Error    string `json:"error"`
}

// act does something to each of the resources named. One that refuses does not
// keep it from the others; the exit code is that of the first which did.
func (c *cli) act(ctx context.Context, action, done, kind string, ids []string,
	do func(ctx context.Context, kind, id string) (*deltatype.ResourceRow, error),
) error {
	var rows []*deltatype.ResourceRow
	var first error
	failed := []failedJSON{}
	for _, id := range ids {
		row, err := do(ctx, kind, id)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			if first == nil {
				first = err
			}
			failed = append(failed, failedJSON{Kind: kind, ObjectID: id, Error: message(err)})
			continue
		}
		rows = append(rows, row)
		if c.output == outputTable {
			_, _ = fmt.Fprintf(c.out, "%s/%s %s\n", row.ObjectKind, wording.Line(row.ObjectID), done)
		}
	}
	if _, err := c.json(actionJSON{Action: action, Count: len(rows), Resources: allJSON(rows), Failed: failed}); err != nil {
		return err
	}
	if first == nil {
		return nil
	}
	for _, f := range failed {
		c.tell("delta: " + f.Error)
	}
	return &silence{codeOf(fail(first))}
}
