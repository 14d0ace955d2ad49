// Package remedy says what a person can do about what the command's doctor and the explanation of a resource find, so that both say the same.
package remedy

import (
	"regexp"
	"strconv"
	"strings"
)

// plainWord is a word that a shell takes as it is.
var plainWord = regexp.MustCompile(`\A[\w@%+=:,./-]+\z`)

// quote makes a text one word of a shell.
func quote(s string) string {
	if plainWord.MatchString(s) && !strings.HasPrefix(s, "-") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// literal is a text in SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// ShardFlag is the flag that names a shard; empty for a kind that is listed as a whole.
func ShardFlag(shard string) string {
	if shard == "" {
		return ""
	}
	return " --shard " + quote(shard)
}

// resource is a command for one resource.
func resource(command, kind, objectID string) string {
	return "delta resources " + command + " " + quote(kind) + " " + quote(objectID)
}

// SyncNow is for a resource that is synced.
func SyncNow(kind, objectID string) string {
	return "nothing; to sync it now: " + resource("invalidate", kind, objectID)
}

// Retry is for a resource that is degraded.
func Retry(kind, objectID string) string {
	return "when the reason is gone: " + resource("retry", kind, objectID)
}

// RetryNow is for a resource whose next attempt waits.
func RetryNow(kind, objectID string) string {
	return "nothing; to try it now: " + resource("retry", kind, objectID)
}

// ExplainParent is for a resource that waits for a parent.
func ExplainParent(kind, objectID string) string {
	return "see what that waits for: " + resource("explain", kind, objectID)
}

// InformParent is for a resource whose parent is not there.
func InformParent(kind, objectID string) string {
	return "inform " + kind + "/" + objectID + ", and give its kind a SyncedRetention that is long enough"
}

// ExplainAwaiting is for a kind of which resources wait long for parents.
func ExplainAwaiting(kind string) string {
	return "see what they wait for: delta resources list --kind " + quote(kind) + " --state scheduled, then delta resources explain " + quote(kind) + " ID"
}

// TouchChildren is for a kind whose resources are not touched though their parents have changed.
func TouchChildren(kind string) string {
	return "see that a client which has the controller of " + quote(kind) + " is started, and what it logs of resources that cannot be touched"
}

// BreakParentCycle is for a resource whose parents lead back to where they came from.
const BreakParentCycle = "inform one of them with other parents"

// EndSnooze is for a resource that its Work has put off.
func EndSnooze(kind, objectID string) string {
	return "nothing; to try it now: " + resource("touch", kind, objectID)
}

// Revive is for a resource that is deleted.
func Revive(kind, objectID string) string {
	return "if it exists: inform it, or " + resource("revive", kind, objectID)
}

// LeaveUnknownState is for a resource in a state that Delta does not work.
func LeaveUnknownState(kind, objectID string) string {
	return "inform its object, or " + resource("touch", kind, objectID)
}

// StartWorkflow is for a resource whose workflow is gone.
func StartWorkflow(kind, objectID string) string {
	return "nothing; to have it started now: " + resource("touch", kind, objectID)
}

// AskElsewhere is for a client that has stopped.
func AskElsewhere(kind, objectID string) string {
	return "ask another client, or " + resource("explain", kind, objectID)
}

// ResumeResource ends the pause of a resource.
func ResumeResource(kind, objectID string) string {
	return "when it is time: delta resume resource " + quote(kind) + " " + quote(objectID)
}

// ResumeKind ends the pause of a kind.
func ResumeKind(kind string) string { return "when it is time: delta resume kind " + quote(kind) }

// EndSnoozeOfKind ends a snooze of a kind.
func EndSnoozeOfKind(kind string) string {
	return "nothing; to end it now: delta resume kind " + quote(kind)
}

// EndSnoozeOfNamespace ends a snooze of a namespace.
func EndSnoozeOfNamespace(namespace string) string {
	return "nothing; to end it now: delta resume namespace " + quote(namespace)
}

// ResumeInformer ends the pause of an informer.
func ResumeInformer(kind string) string {
	return "when it is time: delta resume informer " + quote(kind)
}

// RaiseMaxWorkers is for a namespace that has all of its slots in work.
func RaiseMaxWorkers(namespace string) string {
	return "nothing; or raise MaxWorkers: delta namespaces set " + quote(namespace) + " --max-workers N"
}

// SeePasses is for passes that fail.
func SeePasses(kind string) string { return "see why: delta informs " + quote(kind) }

// SeePassesOfShard is for passes of a shard that fail.
func SeePassesOfShard(kind, shard string) string {
	return "see its passes: delta informs " + quote(kind) + ShardFlag(shard)
}

// ResumeShard ends the pause of a shard.
func ResumeShard(kind, shard string) string {
	return "when it is time: delta resume informer " + quote(kind) + ShardFlag(shard)
}

// ReachPostgres is for a database that does not answer.
const ReachPostgres = "see that Postgres runs there, and that --database-url or DELTA_DATABASE_URL names it; to start one for development: delta dev"

// ListShardless is for resources of a kind with shards that have none.
func ListShardless(kind string) string {
	return "list everything, which gives those that are listed their shard: delta inform " + quote(kind) +
		" --full. What is left is in no shard, or gone: delete it"
}

// Migrate is for a schema that is missing or old.
const Migrate = "apply it: delta migrate up"

// RaiseParallelism is for a kind whose slots are all taken.
const RaiseParallelism = "nothing; or raise ObjectSettings.Parallelism, or start more clients"

// RaiseRateLimit is for calls that wait for their rate.
const RaiseRateLimit = "nothing; or raise its RateLimit"

// SeeTemporal is for a workflow that could not be started.
const SeeTemporal = "see what Temporal says; it is tried again by itself"

// SeeWorkflow is for a workflow whose tasks fail.
const SeeWorkflow = "see the workflow in Temporal's UI, and the logs of the workers"

// StartUpgrade is for a stored object that the controller does not understand.
const StartUpgrade = "start a client whose controller understands it (Upgrade), or inform the object again"

// StartWorker is for a task queue that nobody polls.
const StartWorker = "start a client that has its controller, or name its queue with --task-queue"

// FindLate is for resources that are late.
const FindLate = "see that its workers run and Temporal answers; raise ObjectSettings.Parallelism if they are busy"

// FindWhyLate is for one resource that is late.
const FindWhyLate = FindLate + "; to look at all of that: delta doctor"

// ConnectDirectly is for an address that is a pooler's in transaction mode.
const ConnectDirectly = "give clients, migrations and streams the address of Postgres itself, or of a pooler in session mode. A client that cannot have it looks " +
	"every Config.DispatchPollInterval: shorten that if 5 s are too long. See docs/operations.md, Poolers"

// ReachTemporal is for a Temporal that does not answer.
const ReachTemporal = "see that Temporal runs there, and that --temporal-address, TEMPORAL_ADDRESS or temporal.toml names it; " +
	"informs are kept meanwhile, and worked when it is back"

// MatchInstallation is for a Temporal in which the prefix is another installation's.
const MatchInstallation = "see that the database and the Temporal namespace are those that belong together"

// AskForLimits is for resources that wait long for slots of their limit keys.
const AskForLimits = "see that KeyConcurrency and KeyRate of the kind are what the upstream allows, and how long its calls of Work take"

// StartFinalizer is for deleted resources that no client finalizes.
func StartFinalizer(kind string) string {
	return "start a client whose controller has the Finalizer. Or have the rows removed without: UPDATE delta_controller SET finalizes = FALSE " +
		"WHERE name = " + literal(kind) + "; UPDATE delta_resource SET finalized = NULL WHERE kind = " + literal(kind)
}

// UnderstandObjects is for stored objects that no worker which runs decodes.
func UnderstandObjects(kind string) string {
	return "start a client whose controller understands them (an older version, or one with Upgrade), or inform their objects again. " +
		"To see them: delta resources list --kind " + quote(kind) + " --state scheduled. The explanation of each says what does not decode"
}

// CorrectStale is for objects that are listed in an older version than the stored one.
func CorrectStale(kind string) string {
	return "see that their Compare, or Revision, is right: SELECT * FROM delta_stale WHERE kind = " + literal(kind) + " names them. " +
		"To take what is listed: delta inform " + quote(kind) + " --force"
}

// CorrectRefused is for objects that listings name and that break a rule.
func CorrectRefused(kind string) string {
	return "see all: delta kinds " + quote(kind) + ". Correct them outside, or have the controller leave out or correct what it lists. " +
		"What is gone for good is forgotten by a complete listing, or by DELETE FROM delta_refused"
}

// DecideWithheld is for a listing that leaves out more than it may delete by itself.
func DecideWithheld(kind string) string {
	return "see what upstream lists; then delta informs approve " + quote(kind) + ", or delta informs dismiss " + quote(kind)
}

// RunSource is for a source that no client runs.
func RunSource(kind, name string) string {
	return "start a client whose controllers have it, and see that it reaches Postgres and Temporal. One that is no longer in any program, for good: " +
		"terminate its workflow in Temporal, then DELETE FROM delta_source WHERE kind = " + literal(kind) + " AND name = " + literal(name)
}

// CorrectSource is for a source that fails.
const CorrectSource = "mend what the error says; it is run again by itself, from where it has come to"

// CatchUpSource is for a source that runs and is behind.
const CatchUpSource = "nothing, if it is less behind when you ask again; otherwise see the log of the client that runs it, and what its database does"

// DecideWithheldOfShard is for what a listing of a shard leaves out, or what is left of a shard that is gone.
func DecideWithheldOfShard(kind, shard string) string {
	one := quote(kind) + ShardFlag(shard)
	return "delete them: delta informs approve " + one + "; keep them: delta informs dismiss " + one
}

// EndTransaction is for a transaction that keeps readers of the log of changes back.
func EndTransaction(pid int, prepared string) string {
	if pid == 0 {
		return "commit it, or ROLLBACK PREPARED " + literal(prepared)
	}
	return "have its program commit, or end it: SELECT pg_terminate_backend(" + strconv.Itoa(pid) + ")"
}

// StartConsumer is for a consumer of the log of changes that is behind.
const StartConsumer = "see that a process runs it and what its log says, or remove it with Client.ForgetChangeConsumer: the log keeps what it has not handled"

// RestartConsumer is for a consumer of the log of changes that has lost its position.
const RestartConsumer = "run it with ChangeConsumer.Restart, or remove it with Client.ForgetChangeConsumer, and take over what resources are now"
