package console

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/chariot-giving/delta/delta"
)

const (
	// recordTimeout bounds what is written when a command has ended.
	recordTimeout = 10 * time.Second
	// recordRows is how many records a page has.
	recordRows = 50
)

// errTooMany is recorded of a command that was not begun because too many go on.
var errTooMany = errors.New("too many commands for many resources went on in the process of the console")

// recordCommand writes down that a command is given. One that cannot be written down is not carried out: it would be nobody's.
func recordCommand(ctx context.Context, client *delta.Client, log *slog.Logger, c Command, filter string) (id int64, err error) {
	id, err = client.RecordCommand(ctx, &delta.CommandRecord{
		Actor: cmp.Or(c.User, "somebody"), Command: string(c.Name), Kind: c.Kind, ObjectID: c.ObjectID, Shard: c.Shard, Namespace: c.Namespace, Filter: filter,
	})
	if err != nil {
		log.Warn("delta: console: command cannot be recorded, and is not carried out", "error", err)
	}
	return id, err
}

// endCommand writes down what came of a command.
func endCommand(client *delta.Client, log *slog.Logger, record int64, resources *int64, failure error) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := client.EndCommand(ctx, record, resources, failure); err != nil {
		log.Warn("delta: console: what came of a command cannot be recorded", "record", record, "error", err)
	}
}

// changedBy is how many resources a command has changed that is not for all that match a filter; nil where that is not known.
func changedBy(c Command, err error) *int64 {
	if c.ObjectID == "" {
		return nil
	}
	n := int64(0)
	if err == nil {
		n = 1
	}
	return &n
}

// recordLine is a record as a page shows it.
type recordLine struct {
	delta.CommandRecord
	// Target names the subject of the command, and Address is its page; empty where it has none.
	Target, Address string
	// Outcome is its result in words.
	Outcome string
}

// commands shows the commands that were given, the latest first.
func (h *handler) commands(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	before, err := strconv.ParseInt(cmp.Or(asked.Get("before"), "0"), 10, 64)
	if err != nil || before < 0 {
		h.problem(w, http.StatusBadRequest, "The place to go on from is not a number.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	records, err := h.client.ListCommands(ctx, asked.Get("kind"), asked.Get("id"), before, recordRows)
	if err != nil {
		h.failed(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	page := map[string]any{"User": user, "Kind": asked.Get("kind"), "ID": asked.Get("id"), "Records": recordLines(records), "IsFirst": before == 0}
	if len(records) == recordRows {
		next := url.Values{"kind": {asked.Get("kind")}, "id": {asked.Get("id")}, "before": {strconv.FormatInt(records[len(records)-1].ID, 10)}}
		page["Older"] = "commands?" + next.Encode()
	}
	h.render(w, http.StatusOK, "commands.html", page)
}

func recordLines(records []delta.CommandRecord) (all []recordLine) {
	for _, record := range records {
		line := recordLine{CommandRecord: record}
		switch {
		case record.Filter != "":
			line.Target, line.Address = "all that match "+record.Filter, resourcesPage+"?"+record.Filter
		case record.ObjectID != "":
			line.Target, line.Address = record.Kind+"/"+record.ObjectID, addressOf(record.Kind, record.ObjectID)
		case record.Shard != "":
			line.Target, line.Address = record.Kind+", shard "+record.Shard, kindAddress(record.Kind)
		case record.Kind != "":
			line.Target, line.Address = record.Kind, kindAddress(record.Kind)
		default:
			line.Target = "namespace " + record.Namespace
		}
		switch {
		case record.EndedAt == nil:
			line.Outcome = "goes on, or its process has died"
		case record.Error != "":
			line.Outcome = record.Error
		default:
			line.Outcome = "done"
		}
		all = append(all, line)
	}
	return all
}
