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
	// recordTimeout bounds the write after a command has ended.
	recordTimeout = 10 * time.Second
	// recordRows is how many records a page shows.
	recordRows = 50
)

// errTooMany is recorded for a command that did not start because too many were running.
var errTooMany = errors.New("too many bulk commands were running in the process of the console")

// recordCommand records a command before it runs. A command that cannot be recorded is not executed, because nobody could see who gave it.
func recordCommand(ctx context.Context, client *delta.Client, log *slog.Logger, c Command, filter string) (id int64, err error) {
	id, err = client.RecordCommand(ctx, &delta.CommandRecord{
		Actor: cmp.Or(c.User, "somebody"), Command: string(c.Name), Kind: c.Kind, ObjectID: c.ObjectID, Shard: c.Shard, Namespace: c.Namespace, Filter: filter,
	})
	if err != nil {
		log.Warn("delta: console: command cannot be recorded, and is not executed", "error", err)
	}
	return id, err
}

// endCommand records the outcome of a command.
func endCommand(client *delta.Client, log *slog.Logger, record int64, resources *int64, failure error) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := client.EndCommand(ctx, record, resources, failure); err != nil {
		log.Warn("delta: console: the outcome of a command cannot be recorded", "record", record, "error", err)
	}
}

// changedBy returns how many resources a command for one resource has changed; nil for other commands, where it is not known.
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
	// Target names the subject of the command, and Address is its page; empty if it has none.
	Target, Address string
	// Outcome is the result in words.
	Outcome string
}

// showCommands lists the recorded commands, the latest first.
func (h *handler) showCommands(w http.ResponseWriter, r *http.Request, user string) {
	asked := r.URL.Query()
	before, err := strconv.ParseInt(cmp.Or(asked.Get("before"), "0"), 10, 64)
	if err != nil || before < 0 {
		h.showProblem(w, http.StatusBadRequest, "The field before is not a number.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.ReadTimeout)
	defer cancel()
	records, err := h.client.ListCommands(ctx, asked.Get("kind"), asked.Get("id"), before, recordRows)
	if err != nil {
		h.showError(w, r, cmp.Or(ctx.Err(), err))
		return
	}
	page := map[string]any{"User": user, "Kind": asked.Get("kind"), "ID": asked.Get("id"), "Records": recordLines(records), "IsFirst": before == 0}
	if len(records) == recordRows {
		next := url.Values{"kind": {asked.Get("kind")}, "id": {asked.Get("id")}, "before": {strconv.FormatInt(records[len(records)-1].ID, 10)}}
		page["Older"] = "commands?" + next.Encode()
	}
	h.renderPage(w, http.StatusOK, "commands.html", page)
}

func recordLines(records []delta.CommandRecord) (all []recordLine) {
	for _, record := range records {
		line := recordLine{CommandRecord: record}
		switch {
		case record.Filter != "":
			line.Target, line.Address = "all that match "+record.Filter, resourcesAddress+"?"+record.Filter
		case record.ObjectID != "":
			line.Target, line.Address = record.Kind+"/"+record.ObjectID, resourceAddress(record.Kind, record.ObjectID)
		case record.Shard != "":
			line.Target, line.Address = record.Kind+", shard "+record.Shard, kindAddress(record.Kind)
		case record.Kind != "":
			line.Target, line.Address = record.Kind, kindAddress(record.Kind)
		default:
			line.Target = "namespace " + record.Namespace
		}
		switch {
		case record.EndedAt == nil:
			line.Outcome = "running, or its process has died"
		case record.Error != "":
			line.Outcome = record.Error
		default:
			line.Outcome = "done"
		}
		all = append(all, line)
	}
	return all
}
