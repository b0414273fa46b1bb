// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/conditions"
)

// docsBase is where the documents are that problems point to, as seen from the root of the repository.
const docsBase = "docs/"

// docsRights is the section with the rights that status takes.
const docsRights = docsBase + "troubleshooting.md#rights"

// problemKind is a kind of problem, by how close it is to the cause of the others: 0 comes first.
type problemKind struct {
	rank int
	page string
}

// docs is the section that helps.
func (p problemKind) docs() string { return docsBase + p.page }

// The kinds, cause before consequence.
var (
	notInstalled   = problemKind{0, "troubleshooting.md#fairway-or-the-gateway-api-is-not-installed"}
	operatorDown   = problemKind{1, "troubleshooting.md#the-operator-does-not-run"}
	meshNotReady   = problemKind{2, "troubleshooting.md#the-mesh-is-not-ready"}
	renewalFails   = problemKind{3, "install.md#certificates"}
	nodeProxyDown  = problemKind{4, "troubleshooting.md#a-node-has-no-proxy"}
	notEnrolled    = problemKind{5, "user-guide.md#bring-a-namespace-into-the-mesh"}
	podsUncaptured = problemKind{6, "troubleshooting.md#pods-are-not-captured"}
	proxyRejects   = problemKind{7, "troubleshooting.md#a-proxy-does-not-take-its-configuration"}
	waypointDown   = problemKind{8, "troubleshooting.md#a-waypoint-does-not-serve"}
	serviceRefuses = problemKind{9, "troubleshooting.md#a-service-refuses-connections"}
	proxyCutOff    = problemKind{10, "troubleshooting.md#a-proxy-is-not-connected"}
	// entryBroken are routes and policies, which are problems to those who write them.
	entryBroken = problemKind{11, "troubleshooting.md#routes-and-policies-with-problems"}
)

// problemKinds are all of them.
var problemKinds = []problemKind{
	notInstalled, operatorDown, meshNotReady, renewalFails, nodeProxyDown, notEnrolled, podsUncaptured, proxyRejects,
	waypointDown, serviceRefuses, proxyCutOff, entryBroken,
}

// problem is something that is wrong.
type problem struct {
	// Text is a sentence.
	Text string `json:"text"`
	// About is the object that it is about, if there is one: its kind and name.
	About string `json:"about,omitempty"`
	// Docs is the section of the documents that helps.
	Docs string `json:"docs"`
	rank int
}

// findings are what is wrong, and what could not be found out.
type findings struct {
	// Problems are what is wrong, a sentence each, causes first.
	Problems []string `json:"problems,omitempty"`
	// ProblemDetails say more of each of the Problems, in the same order.
	ProblemDetails []problem `json:"problemDetails,omitempty"`
	// Unknown is what could not be found out, a sentence each.
	Unknown []string `json:"unknown,omitempty"`
	// Unread are the kinds that could not be listed: that there are none of them says nothing.
	Unread []string `json:"unread,omitempty"`
}

func (f *findings) problem(kind problemKind, about, format string, args ...any) {
	f.ProblemDetails = append(f.ProblemDetails, problem{
		Text: oneLine(fmt.Sprintf(format, args...)), About: about, Docs: kind.docs(), rank: kind.rank,
	})
}

func (f *findings) unknown(format string, args ...any) {
	f.Unknown = append(f.Unknown, oneLine(fmt.Sprintf(format, args...)))
}

// sorted puts causes before what follows from them.
func (f *findings) sorted() {
	slices.SortStableFunc(f.ProblemDetails, func(a, b problem) int { return cmp.Compare(a.rank, b.rank) })
	f.Problems = nil
	for _, p := range f.ProblemDetails {
		f.Problems = append(f.Problems, p.Text)
	}
	slices.Sort(f.Unread)
}

// well tells whether there is nothing.
func (f *findings) well() bool { return len(f.ProblemDetails) == 0 && len(f.Unknown) == 0 }

// waitsFor is the first of them, for people who wait until there are none.
func (f *findings) waitsFor() string {
	all := slices.Concat(f.Problems, f.Unknown)
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s (and %d more)", all[0], len(all)-1)
}

// draw writes them for people. Problems with the same section follow each other, so it is named after the last.
func (f *findings) draw(t *table) {
	if len(f.ProblemDetails) > 0 {
		t.line("\nProblems:")
	}
	for i, p := range f.ProblemDetails {
		t.line("  - %s", p.Text)
		if i+1 == len(f.ProblemDetails) || f.ProblemDetails[i+1].Docs != p.Docs {
			t.line("    see %s", p.Docs)
		}
	}
	if len(f.Unknown) > 0 {
		t.line("\nUnknown:")
	}
	for _, u := range f.Unknown {
		t.line("  - %s", u)
	}
}

// mostNames is how many objects a sentence names.
const mostNames = 3

// enumerate names the first of many.
func enumerate(all []string) string {
	if len(all) <= mostNames {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:mostNames], ", "), len(all)-mostNames)
}

// troubles are why pods that do the same are not ready, in words.
func troubles(pods []corev1.Pod, gate corev1.PodConditionType) string {
	var out []string
	for _, t := range conditions.TroublesOf(pods, gate) {
		out = append(out, t.Why)
	}
	return enumerate(out)
}

// groups collects what has the same words in common, in the order in which the words came.
type groups struct {
	words   []string
	members map[string][]string
}

func (g *groups) add(words, member string) {
	if g.members == nil {
		g.members = map[string][]string{}
	}
	if g.members[words] == nil {
		g.words = append(g.words, words)
	}
	g.members[words] = append(g.members[words], member)
}

// because adds a reason to a sentence, if there is one.
func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// podsAre begins a sentence about so many pods.
func podsAre(n int) string {
	if n == 1 {
		return "1 pod is"
	}
	return fmt.Sprintf("%d pods are", n)
}

// and lists in words.
func and(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1]
}
