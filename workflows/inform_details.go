package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/internal/wording"
)

// showInformDetails writes the details of an informer's run, for people.
func showInformDetails(ctx workflow.Context, in activities.InformInput, doing string, more ...string) {
	lines := []string{fmt.Sprintf("The run of the informer of kind **%s**%s %s.", in.Kind, describeRequest(in), doing)}
	for _, line := range more {
		if line != "" {
			lines = append(lines, line)
		}
	}
	workflow.SetCurrentDetails(ctx, strings.Join(lines, "\n\n"))
}

// describeRequest describes what a run was asked to list.
func describeRequest(in activities.InformInput) string {
	var asked []string
	if in.Options.Shard != "" {
		asked = append(asked, fmt.Sprintf("shard %q", in.Options.Shard))
	}
	if in.Gone {
		asked = append(asked, "which its controller no longer names")
	}
	if in.FullListing {
		asked = append(asked, "a full listing")
	}
	if in.ProcessExisting {
		asked = append(asked, "unchanged objects too")
	}
	if in.Trigger != "" {
		asked = append(asked, "started by "+in.Trigger)
	}
	if len(asked) == 0 {
		return ""
	}
	return " (" + strings.Join(asked, ", ") + ")"
}

// describeProgress describes the result of a pass, or of the passes of several shards.
func describeProgress(kind string, p activities.InformProgress) []string {
	report := activities.PassReport{}
	if p.Pass != nil {
		report = *p.Pass
	}
	lines := []string{
		fmt.Sprintf("Listed **%d** in %s, %s. New or changed %d, refused %d, older than what is stored %d.",
			p.Listed, wording.Count(report.Pages, "page"), describeStart(report), p.Scheduled, p.Refused, p.Stale),
	}
	if p.Deleted > 0 {
		lines = append(lines, fmt.Sprintf("Marked deleted, because they are not listed any more: %d. %s", p.Deleted, describeFirst(report.Deleted, int64(p.Deleted))))
	}
	if p.Withheld > 0 {
		lines = append(lines, fmt.Sprintf("Withheld, until an operator decides (delta informs approve %s, or dismiss): %d. %s",
			kind, p.Withheld, describeFirst(report.Withheld, p.Withheld)))
	}
	return lines
}

// describeStart describes where a listing began.
func describeStart(report activities.PassReport) string {
	var from []string
	if report.After != nil {
		from = append(from, "after "+report.After.UTC().Format(time.RFC3339))
	}
	if report.Cursor != "" {
		from = append(from, fmt.Sprintf("from the cursor %q", report.Cursor))
	}
	switch {
	case len(from) > 0:
		return strings.Join(from, " and ")
	case report.Complete:
		return "of all there is"
	default:
		return "from the beginning"
	}
}

// describeFirst names the first of some resources.
func describeFirst(ids []string, all int64) string {
	if len(ids) == 0 {
		return ""
	}
	if more := all - int64(len(ids)); more > 0 {
		return fmt.Sprintf("%s, and %d more", strings.Join(ids, ", "), more)
	}
	return strings.Join(ids, ", ")
}
