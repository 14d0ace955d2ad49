// Package remedy has the advice that doctor and the explanation of a resource give, in one place so that both give the same.
package remedy

import (
	"regexp"
	"strconv"
	"strings"
)

// plainWord matches a word that a shell reads without quotes.
var plainWord = regexp.MustCompile(`\A[\w@%+=:,./-]+\z`)

// quoteShell quotes s, so that a shell reads it as one word.
func quoteShell(s string) string {
	if plainWord.MatchString(s) && !strings.HasPrefix(s, "-") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// quoteSQL quotes s as a literal of SQL.
func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// ShardFlag returns the flag that names a shard; empty for a kind without shards.
func ShardFlag(shard string) string {
	if shard == "" {
		return ""
	}
	return " --shard " + quoteShell(shard)
}

// resourceCommand returns a command for one resource.
func resourceCommand(command, kind, objectID string) string {
	return "delta resources " + command + " " + quoteShell(kind) + " " + quoteShell(objectID)
}

// SyncNow is for a resource that is synced.
func SyncNow(kind, objectID string) string {
	return "nothing; to sync it now: " + resourceCommand("invalidate", kind, objectID)
}

// Retry is for a resource that is degraded.
func Retry(kind, objectID string) string {
	return "when the reason is gone: " + resourceCommand("retry", kind, objectID)
}

// RetryNow is for a resource that waits for its next attempt.
func RetryNow(kind, objectID string) string {
	return "nothing; to try it now: " + resourceCommand("retry", kind, objectID)
}

// ExplainParent is for a resource that waits for a parent.
func ExplainParent(kind, objectID string) string {
	return "see what that waits for: " + resourceCommand("explain", kind, objectID)
}

// InformParent is for a resource that has no parent yet.
func InformParent(kind, objectID string) string {
	return "inform " + kind + "/" + objectID + ", and give its kind a SyncedRetention that is long enough"
}

// ExplainAwaiting is for a kind with resources that wait long for parents.
func ExplainAwaiting(kind string) string {
	return "see what they wait for: delta resources list --kind " + quoteShell(kind) + " --state scheduled, then delta resources explain " + quoteShell(kind) + " ID"
}

// TouchChildren is for a kind with resources that are not touched, although their parents have changed.
func TouchChildren(kind string) string {
	return "start a client that has the controller of " + quoteShell(kind) + ", and see its log for resources that cannot be touched"
}

// BreakParentCycle is for a resource with a cycle of parents.
const BreakParentCycle = "inform one of them with other parents"

// EndSnooze is for a resource that Work has snoozed.
func EndSnooze(kind, objectID string) string {
	return "nothing; to try it now: " + resourceCommand("touch", kind, objectID)
}

// Revive is for a resource that is deleted.
func Revive(kind, objectID string) string {
	return "if it exists: inform it, or " + resourceCommand("revive", kind, objectID)
}

// LeaveUnknownState is for a resource in a state that Delta does not know.
func LeaveUnknownState(kind, objectID string) string {
	return "inform its object, or " + resourceCommand("touch", kind, objectID)
}

// StartWorkflow is for a resource without a workflow.
func StartWorkflow(kind, objectID string) string {
	return "nothing; to start it now: " + resourceCommand("touch", kind, objectID)
}

// AskElsewhere is for a client that has stopped.
func AskElsewhere(kind, objectID string) string {
	return "ask another client, or " + resourceCommand("explain", kind, objectID)
}

// ResumeResource ends the pause of a resource.
func ResumeResource(kind, objectID string) string {
	return "when it is time: delta resume resource " + quoteShell(kind) + " " + quoteShell(objectID)
}

// ResumeKind ends the pause of a kind.
func ResumeKind(kind string) string { return "when it is time: delta resume kind " + quoteShell(kind) }

// EndSnoozeOfKind ends a snooze of a kind.
func EndSnoozeOfKind(kind string) string {
	return "nothing; to end it now: delta resume kind " + quoteShell(kind)
}

// EndSnoozeOfNamespace ends a snooze of a namespace.
func EndSnoozeOfNamespace(namespace string) string {
	return "nothing; to end it now: delta resume namespace " + quoteShell(namespace)
}

// ResumeInformer ends the pause of an informer.
func ResumeInformer(kind string) string {
	return "when it is time: delta resume informer " + quoteShell(kind)
}

// RaiseMaxWorkers is for a namespace without a free slot.
func RaiseMaxWorkers(namespace string) string {
	return "nothing; or raise MaxWorkers: delta namespaces set " + quoteShell(namespace) + " --max-workers N"
}

// SeePasses is for passes that fail.
func SeePasses(kind string) string { return "see why: delta informs " + quoteShell(kind) }

// SeePassesOfShard is for passes of a shard that fail.
func SeePassesOfShard(kind, shard string) string {
	return "see its passes: delta informs " + quoteShell(kind) + ShardFlag(shard)
}

// ResumeShard ends the pause of a shard.
func ResumeShard(kind, shard string) string {
	return "when it is time: delta resume informer " + quoteShell(kind) + ShardFlag(shard)
}

// ReachPostgres is for a database that does not answer.
const ReachPostgres = "see that Postgres runs there, and that --database-url or DELTA_DATABASE_URL names it; to start one for development: delta dev"

// ListShardless is for resources of a kind with shards that have none.
func ListShardless(kind string) string {
	return "list everything, which gives those that are listed their shard: delta inform " + quoteShell(kind) +
		" --full. What is left is in no shard, or gone: delete it"
}

// Migrate is for a schema that is missing or old.
const Migrate = "apply it: delta migrate up"

// RaiseParallelism is for a kind without a free slot.
const RaiseParallelism = "nothing; or raise ObjectSettings.Parallelism, or start more clients"

// RaiseRateLimit is for calls that wait for their rate limit.
const RaiseRateLimit = "nothing; or raise its RateLimit"

// SeeTemporal is for a workflow that could not be started.
const SeeTemporal = "see the error of Temporal; the start is retried automatically"

// SeeWorkflow is for a workflow with failing tasks.
const SeeWorkflow = "see the workflow in Temporal's UI, and the logs of the workers"

// StartUpgrade is for a stored object that the controller cannot decode.
const StartUpgrade = "start a client with a controller that can decode it (Upgrade), or inform the object again"

// StartWorker is for a kind that no client has.
const StartWorker = "start a client that has its controller, or name its queue with --task-queue"

// StartPolling is for a task queue that nobody polls.
const StartPolling = StartWorker + ". If one runs, Temporal may refuse its polls, and its log says so: raise frontend.namespaceCount, or set Config.SharedWorker"

// FindLate is for late resources.
const FindLate = "see that its workers run and Temporal answers; raise ObjectSettings.Parallelism if they are busy"

// FindWhyLate is for one late resource.
const FindWhyLate = FindLate + "; to check everything: delta doctor"

// ConnectDirectly is for the address of a pooler in transaction mode.
const ConnectDirectly = "give clients, migrations and streams the address of Postgres itself, or of a pooler in session mode. Without it, a client polls every " +
	"Config.DispatchPollInterval: shorten that if 5 s are too long. See docs/operations.md, Poolers"

// ReachTemporal is for a Temporal that does not answer.
const ReachTemporal = "see that Temporal runs there, and that --temporal-address, TEMPORAL_ADDRESS or temporal.toml names it; " +
	"informs are kept meanwhile, and worked when it is back"

// MatchInstallation is for a Temporal namespace in which another installation has the prefix.
const MatchInstallation = "see that the database and the Temporal namespace belong together"

// DecideRestored is for a database that was restored from a backup, or is a copy.
const DecideRestored = "if it takes the place of the original: delta restored adopt; if it is a copy beside it: delta restored separate"

// AskForLimits is for resources that wait long for slots of their limit keys.
const AskForLimits = "see that KeyConcurrency and KeyRate of the kind match the limits of the upstream, and how long its calls of Work take"

// StartFinalizer is for deleted resources that no client finalizes.
func StartFinalizer(kind string) string {
	return "start a client whose controller has the Finalizer. Or remove the rows without it: UPDATE delta_controller SET finalizes = FALSE " +
		"WHERE name = " + quoteSQL(kind) + "; UPDATE delta_resource SET finalized = NULL WHERE kind = " + quoteSQL(kind)
}

// UnderstandObjects is for stored objects that no running worker can decode.
func UnderstandObjects(kind string) string {
	return "start a client with a controller that can decode them (an older version, or one with Upgrade), or inform their objects again. " +
		"To see them: delta resources list --kind " + quoteShell(kind) + " --state scheduled. The explanation of each names the field that does not decode"
}

// CorrectStale is for objects listed in an older version than the stored one.
func CorrectStale(kind string) string {
	return "see that their Compare, or Revision, is right: SELECT * FROM delta_stale WHERE kind = " + quoteSQL(kind) + " names them. " +
		"To accept the listed versions: delta inform " + quoteShell(kind) + " --force"
}

// CorrectRefused is for listed objects that break a rule.
func CorrectRefused(kind string) string {
	return "see all: delta kinds " + quoteShell(kind) + ". Correct them upstream, or let the controller leave them out or correct them. " +
		"A complete listing, or DELETE FROM delta_refused, forgets those that no longer exist"
}

// DecideWithheld is for a listing that leaves out more than it may delete by itself.
func DecideWithheld(kind string) string {
	return "see what the upstream lists; then delta informs approve " + quoteShell(kind) + ", or delta informs dismiss " + quoteShell(kind)
}

// RunSource is for a source that no client runs.
func RunSource(kind, name string) string {
	return "start a client with controllers that have it, and see that it reaches Postgres and Temporal. If no program has it any more: " +
		"terminate its workflow in Temporal, then DELETE FROM delta_source WHERE kind = " + quoteSQL(kind) + " AND name = " + quoteSQL(name)
}

// CorrectSource is for a source that fails.
const CorrectSource = "correct the cause of the error; the source is run again automatically, from its saved position"

// CatchUpSource is for a source that runs and is behind.
const CatchUpSource = "nothing, if it is less behind when you check again; otherwise see the log of the client that runs it, and the load of its database"

// DecideWithheldOfShard is for resources that the listing of a shard leaves out, or that belong to a shard that is gone.
func DecideWithheldOfShard(kind, shard string) string {
	one := quoteShell(kind) + ShardFlag(shard)
	return "delete them: delta informs approve " + one + "; keep them: delta informs dismiss " + one
}

// EndTransaction is for a transaction that holds back readers of the log of changes.
func EndTransaction(pid int, prepared string) string {
	if pid == 0 {
		return "commit it, or ROLLBACK PREPARED " + quoteSQL(prepared)
	}
	return "let its program commit, or end it: SELECT pg_terminate_backend(" + strconv.Itoa(pid) + ")"
}

// StartConsumer is for a consumer of the log of changes that is behind.
const StartConsumer = "see that a process runs it, and see its log, or remove it with Client.ForgetChangeConsumer: the log keeps all entries that it has not handled"

// RestartConsumer is for a consumer of the log of changes that has lost its position.
const RestartConsumer = "run it with ChangeConsumer.Restart, or remove it with Client.ForgetChangeConsumer, and read the present resources once"

// MakeCurrent is for versioned workers that get no tasks.
func MakeCurrent(namespace, deployment, buildID string) string {
	return "give the tasks to the workers that poll: temporal worker deployment set-current-version --namespace " + quoteShell(namespace) +
		" --deployment-name " + quoteShell(deployment) + " --build-id " + quoteShell(buildID)
}

// MakeUnversionedCurrent is for workers without a version that get no tasks, because a version of a deployment does.
func MakeUnversionedCurrent(namespace, deployment string) string {
	return "start a client of that version (Config.WorkerVersion). Or give the tasks to the workers that poll: temporal worker deployment set-current-version --namespace " +
		quoteShell(namespace) + " --deployment-name " + quoteShell(deployment) + " --unversioned"
}

// EndRamp is for a version, or workers without one, that gets a part of the tasks and does not poll.
func EndRamp(namespace, deployment, buildID string) string {
	build := " --unversioned"
	if buildID != "" {
		build = " --build-id " + quoteShell(buildID)
	}
	return "start a client of that version, or end the ramp: temporal worker deployment set-ramping-version --namespace " + quoteShell(namespace) +
		" --deployment-name " + quoteShell(deployment) + build + " --delete"
}
