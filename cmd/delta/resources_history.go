package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/internal/wording"
	"github.com/chariot-giving/delta/sinks/changelog"
)

func historyCommand(c *cli) *cobra.Command {
	limit, before := 20, int64(0)
	cmd := &cobra.Command{
		Use:   "history KIND ID",
		Short: "Show how a resource has changed, from the log of changes",
		Long: "history shows the settled steps of a resource, the latest first: created, updated, failed, deleted, finalized, revived, and what differs\n" +
			"from the object that was synced before, field by field. There are some for kinds with a log (ObjectSettings.Log), for as long as it keeps\n" +
			"them, also after the row was removed.",
		Example:           "  delta resources history user usr_1 --limit 100",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeKindFirst,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, func(ctx context.Context, s *session) error {
				if limit < 1 {
					return fmt.Errorf("--limit %d: must be between 1 and 10000", limit)
				}
				changes, err := s.ResourceChanges(ctx, args[0], args[1], before, limit)
				if err != nil {
					return err
				}
				if done, err := c.json(historyOf(changes, limit)); done {
					return err
				}
				return c.history(args[0], args[1], changes, limit, time.Now())
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "`most` changes to show")
	cmd.Flags().Int64Var(&before, "before", 0, "only changes before the one with this `id`")
	return cmd
}

// historyJSON is a history as --output json shows it. Members are added, and never renamed or removed.
type historyJSON struct {
	Changes []changeJSON `json:"changes"`
	// NextBefore is what --before has to be for those that follow; null where there are none.
	NextBefore *int64 `json:"next_before"`
}

type changeJSON struct {
	changelog.Entry
	Differences []differenceJSON `json:"differences"`
}

// differenceJSON is a field that differs. A side that has no such field is left out.
type differenceJSON struct {
	Field  string          `json:"field"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

func historyOf(changes []*delta.Change, limit int) historyJSON {
	out := historyJSON{Changes: []changeJSON{}}
	for _, c := range changes {
		out.Changes = append(out.Changes, changeJSON{changelog.EntryOf(c), differences(c.Before, c.After)})
	}
	if n := len(changes); n == limit {
		out.NextBefore = &changes[n-1].ID
	}
	return out
}

// history writes the changes of a resource for a person.
func (c *cli) history(kind, id string, changes []*delta.Change, limit int, now time.Time) error {
	var b strings.Builder
	if len(changes) == 0 {
		_, err := fmt.Fprintf(c.err, "The log of changes has none of %s/%s: it has those of kinds with ObjectSettings.Log.\n", kind, wording.Line(id))
		return err
	}
	for i, change := range changes {
		if i > 0 {
			fmt.Fprintln(&b)
		}
		fmt.Fprintf(&b, "%s (%s)  %s, generation %d\n", change.At.Format(time.RFC3339), wording.When(&change.At, now), change.Type, change.Generation)
		for _, text := range wrap(wording.Line(change.Error), max(c.width-4, 0)) {
			if text != "" {
				fmt.Fprintf(&b, "    %s\n", text)
			}
		}
		if change.After != nil {
			c.writeDifferences(&b, differences(change.Before, change.After))
		}
	}
	if _, err := fmt.Fprint(c.out, b.String()); err != nil {
		return err
	}
	if n := len(changes); n == limit {
		_, err := fmt.Fprintf(c.err, "There may be more: --before %d\n", changes[n-1].ID)
		return err
	}
	return nil
}

// writeDifferences writes a line for each field: what it became, and what it was, if it was there.
func (c *cli) writeDifferences(b *strings.Builder, all []differenceJSON) {
	for _, d := range all {
		text := fmt.Sprintf("%s: %s", wording.Line(d.Field), wording.Line(string(d.After)))
		switch {
		case d.After == nil:
			text = fmt.Sprintf("%s: %s → gone", wording.Line(d.Field), wording.Line(string(d.Before)))
		case d.Before != nil:
			text = fmt.Sprintf("%s: %s → %s", wording.Line(d.Field), wording.Line(string(d.Before)), wording.Line(string(d.After)))
		}
		if c.width > 0 {
			text = cut(text, max(c.width-4, leastShown))
		}
		fmt.Fprintf(b, "    %s\n", text)
	}
}

// differences are the fields in which two JSON texts differ, in the order of their names. Fields of objects are compared one by one, and so are elements of arrays.
func differences(before, after json.RawMessage) []differenceJSON {
	all := []differenceJSON{}
	compareFields("", decodeJSON(before), decodeJSON(after), &all)
	return all
}

// absent is what a side has that has no such field.
type absent struct{}

// decodeJSON decodes a text with its numbers as they are written.
func decodeJSON(text json.RawMessage) (value any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if len(text) == 0 || decoder.Decode(&value) != nil {
		return absent{}
	}
	return value
}

func compareFields(field string, before, after any, to *[]differenceJSON) {
	if reflect.DeepEqual(before, after) {
		return
	}
	if was, is, both := asObjects(before, after); both {
		names := slices.Concat(slices.Collect(maps.Keys(was)), slices.Collect(maps.Keys(is)))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			compareFields(strings.TrimPrefix(field+"."+name, "."), memberOf(was, name), memberOf(is, name), to)
		}
		return
	}
	was, wasArray := before.([]any)
	if is, isArray := after.([]any); wasArray && isArray {
		for i := range max(len(was), len(is)) {
			compareFields(fmt.Sprintf("%s[%d]", field, i), elementOf(was, i), elementOf(is, i), to)
		}
		return
	}
	*to = append(*to, differenceJSON{field, encodeJSON(before), encodeJSON(after)})
}

// asObjects are two sides as objects, if both are: a side that has nothing is one without fields, so that those of the other are named one by one.
func asObjects(before, after any) (was, is map[string]any, both bool) {
	was, wasObject := before.(map[string]any)
	is, isObject := after.(map[string]any)
	_, wasAbsent := before.(absent)
	_, isAbsent := after.(absent)
	return was, is, (wasObject && isObject) || (wasObject && isAbsent && len(was) > 0) || (isObject && wasAbsent && len(is) > 0)
}

func memberOf(object map[string]any, name string) any {
	if value, there := object[name]; there {
		return value
	}
	return absent{}
}

func elementOf(array []any, i int) any {
	if i < len(array) {
		return array[i]
	}
	return absent{}
}

// encodeJSON is a value as JSON; nil for none.
func encodeJSON(value any) json.RawMessage {
	if _, isAbsent := value.(absent); isAbsent {
		return nil
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return nil
	}
	return bytes.TrimSpace(b.Bytes())
}
