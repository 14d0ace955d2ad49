package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/remedy"
)

const (
	oddKind = "page;s"
	oddID   = "it's, a; page. 1"
)

// remedies returns the texts of internal/remedy by name, and how many commands each text has.
var remedies = map[string]struct {
	text     string
	commands int
}{
	"SyncNow":                {remedy.SyncNow(oddKind, oddID), 1},
	"Retry":                  {remedy.Retry(oddKind, oddID), 1},
	"RetryNow":               {remedy.RetryNow(oddKind, oddID), 1},
	"EndSnooze":              {remedy.EndSnooze(oddKind, oddID), 1},
	"Revive":                 {remedy.Revive(oddKind, oddID), 1},
	"LeaveUnknownState":      {remedy.LeaveUnknownState(oddKind, oddID), 1},
	"StartWorkflow":          {remedy.StartWorkflow(oddKind, oddID), 1},
	"AskElsewhere":           {remedy.AskElsewhere(oddKind, oddID), 1},
	"ResumeResource":         {remedy.ResumeResource(oddKind, oddID), 1},
	"RunSource":              {remedy.RunSource(oddKind, oddID), 0},
	"CorrectSource":          {remedy.CorrectSource, 0},
	"CatchUpSource":          {remedy.CatchUpSource, 0},
	"ResumeKind":             {remedy.ResumeKind(oddKind), 1},
	"ResumeInformer":         {remedy.ResumeInformer(oddKind), 1},
	"EndSnoozeOfKind":        {remedy.EndSnoozeOfKind(oddKind), 1},
	"EndSnoozeOfNamespace":   {remedy.EndSnoozeOfNamespace(oddKind), 1},
	"RaiseMaxWorkers":        {strings.Replace(remedy.RaiseMaxWorkers(oddKind), " N", " 7", 1), 1},
	"SeePasses":              {remedy.SeePasses(oddKind), 1},
	"SeePassesOfShard":       {remedy.SeePassesOfShard(oddKind, oddID), 1},
	"ResumeShard":            {remedy.ResumeShard(oddKind, oddID), 1},
	"ReachPostgres":          {remedy.ReachPostgres, 1},
	"ListShardless":          {remedy.ListShardless(oddKind), 1},
	"CorrectStale":           {remedy.CorrectStale(oddKind), 1},
	"CorrectRefused":         {remedy.CorrectRefused(oddKind), 1},
	"UnderstandObjects":      {remedy.UnderstandObjects(oddKind), 1},
	"DecideWithheld":         {remedy.DecideWithheld(oddKind), 2},
	"DecideWithheldOfShard":  {remedy.DecideWithheldOfShard(oddKind, oddID), 2},
	"ShardFlag":              {"delta informs approve account" + remedy.ShardFlag(oddID), 1},
	"StartFinalizer":         {remedy.StartFinalizer(oddKind), 0},
	"Migrate":                {remedy.Migrate, 1},
	"FindWhyLate":            {remedy.FindWhyLate, 1},
	"FindLate":               {remedy.FindLate, 0},
	"RaiseParallelism":       {remedy.RaiseParallelism, 0},
	"RaiseRateLimit":         {remedy.RaiseRateLimit, 0},
	"SeeTemporal":            {remedy.SeeTemporal, 0},
	"SeeWorkflow":            {remedy.SeeWorkflow, 0},
	"StartUpgrade":           {remedy.StartUpgrade, 0},
	"StartWorker":            {remedy.StartWorker, 0},
	"StartPolling":           {remedy.StartPolling, 0},
	"ConnectDirectly":        {remedy.ConnectDirectly, 0},
	"ReachTemporal":          {remedy.ReachTemporal, 0},
	"MatchInstallation":      {remedy.MatchInstallation, 0},
	"DecideRestored":         {remedy.DecideRestored, 2},
	"AskForLimits":           {remedy.AskForLimits, 0},
	"ExplainParent":          {remedy.ExplainParent("account", "a b"), 1},
	"InformParent":           {remedy.InformParent("account", "a b"), 0},
	"BreakParentCycle":       {remedy.BreakParentCycle, 0},
	"ExplainAwaiting":        {remedy.ExplainAwaiting("account"), 2},
	"TouchChildren":          {remedy.TouchChildren("account"), 0},
	"EndTransaction":         {remedy.EndTransaction(7, ""), 0},
	"StartConsumer":          {remedy.StartConsumer, 0},
	"RestartConsumer":        {remedy.RestartConsumer, 0},
	"MakeCurrent":            {remedy.MakeCurrent("default", "invoices", oddID), 0},
	"MakeUnversionedCurrent": {remedy.MakeUnversionedCurrent("default", "invoices"), 0},
	"EndRamp":                {remedy.EndRamp("default", "invoices", oddID), 0},
}

func TestRemediesNameCommandsThatThereAre(t *testing.T) {
	t.Parallel()
	for name, is := range remedies {
		commands := findCommands(is.text)
		require.Len(t, commands, is.commands, "%s: %s", name, is.text)
		for _, words := range commands {
			require.NoError(t, checkCommand(words), "%s: delta %q", name, words)
		}
	}
	// The check itself must be able to fail.
	for _, wrong := range []string{
		"delta resources restart account a", "delta resources explain", "delta doctor looks at all", "delta inform account --strongly",
		"delta resources revive",
	} {
		require.Error(t, checkCommand(findCommands(wrong)[0]), wrong)
	}
}

func TestEachRemedyIsChecked(t *testing.T) {
	t.Parallel()
	parsed, err := parser.ParseFile(token.NewFileSet(), "../../internal/remedy/remedy.go", nil, 0)
	require.NoError(t, err)
	found := 0
	check := func(name *ast.Ident) {
		if name.IsExported() {
			found++
			require.Contains(t, remedies, name.Name)
		}
	}
	for _, declared := range parsed.Decls {
		switch d := declared.(type) {
		case *ast.FuncDecl:
			check(d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					check(values.Names[0])
				}
			}
		}
	}
	require.Len(t, remedies, found)
}

// findCommands returns the words of each command in a text, without the name of the program. A command ends with the text, or with a
// punctuation mark after a word.
func findCommands(text string) (all [][]string) {
	for {
		_, after, found := strings.Cut(" "+text, " delta ")
		if !found {
			return all
		}
		words, rest := splitShellWords(after)
		all, text = append(all, words), rest
	}
}

// splitShellWords splits a command into words as a shell does, until one ends with a punctuation mark that is followed by a space.
func splitShellWords(text string) (words []string, rest string) {
	var word strings.Builder
	quoted, escaped := false, false
	for i, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\'':
			quoted = !quoted
		case quoted:
			word.WriteRune(r)
		case r == '\\':
			escaped = true
		case r == ' ':
			words = append(words, word.String())
			word.Reset()
		case strings.ContainsRune(",;.", r) && strings.HasPrefix(text[i+1:], " "):
			return append(words, word.String()), text[i+1:]
		default:
			word.WriteRune(r)
		}
	}
	return append(words, word.String()), ""
}

// checkCommand returns the error with which the command would refuse these arguments before it does anything.
func checkCommand(words []string) error {
	cmd, rest, err := rootCommand(&cli{}).Find(words)
	if err != nil {
		return err
	}
	if !cmd.Runnable() {
		return errors.New("it is no command, but a group of them")
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
