// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/blang/semver/v4"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// released makes a catalogue of versions, one release after the other.
func released(t *testing.T, versions ...string) []source.Object {
	t.Helper()
	var catalog []byte
	for _, v := range versions {
		src, err := source.Load(root)
		if err != nil {
			t.Fatal(err)
		}
		src.SetVersion(v)
		if catalog, err = Catalog(src, "registry.example/bundle:v"+v, catalog); err != nil {
			t.Fatal(err)
		}
	}
	documents, err := source.Parse(catalog)
	if err != nil {
		t.Fatal(err)
	}
	return documents
}

// channel of a catalogue, by the names of its entries.
func channelIn(t *testing.T, documents []source.Object, name string) map[string]source.Object {
	t.Helper()
	for _, d := range documents {
		if d.Str("schema") == channelSchema && d.Str("name") == name {
			out := map[string]source.Object{}
			for _, e := range list(d["entries"]) {
				out[e.Str("name")] = e
			}
			return out
		}
	}
	t.Fatalf("there is no channel %s", name)
	return nil
}

func parsed(t *testing.T, name string) semver.Version {
	t.Helper()
	v, err := semver.Parse(strings.TrimPrefix(name, packageName+".v"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// next is where the lifecycle manager goes from an entry: to the newest that replaces it, or whose range has it.
func next(t *testing.T, channel map[string]source.Object, from string) string {
	t.Helper()
	var found []semver.Version
	for name, e := range channel {
		in, err := semver.ParseRange(e.Str("skipRange"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.Str("replaces") == from || in(parsed(t, from)) {
			found = append(found, parsed(t, name))
		}
	}
	if len(found) == 0 {
		return ""
	}
	return csvName(slices.MaxFunc(found, semver.Version.Compare))
}

// TestUpgrades follows the graph of a catalogue with several versions, whatever the order of their releases: from each
// version it leads to the newest, never to an older one, and never past a minor version.
func TestUpgrades(t *testing.T) {
	documents := released(t, "0.1.0", "0.1.1", "0.2.0-rc.1", "0.2.0", "0.1.2", "0.3.0", "1.0.0-rc.1")
	for name, want := range map[string]struct {
		newest string
		size   int
	}{stable: {"fairway.v0.3.0", 5}, preview: {"fairway.v1.0.0-rc.1", 7}} {
		channel := channelIn(t, documents, name)
		if len(channel) != want.size {
			t.Errorf("%s has %d entries", name, len(channel))
		}
		for from := range channel {
			at, steps := from, 0
			for to := next(t, channel, at); to != ""; to = next(t, channel, at) {
				a, b := parsed(t, at), parsed(t, to)
				if b.LE(a) || (a.Major == b.Major && b.Minor > a.Minor+1) {
					t.Fatalf("%s: from %s to %s", name, at, to)
				}
				if steps++; steps > len(channel) {
					t.Fatalf("%s: from %s it goes round", name, from)
				}
				at = to
			}
			if at != want.newest {
				t.Errorf("%s: from %s one comes to %s", name, from, at)
			}
		}
	}
	if got := next(t, channelIn(t, documents, stable), "fairway.v0.1.0"); got != "fairway.v0.2.0" {
		t.Errorf("from 0.1.0 one comes to %s", got)
	}
}

// TestOneHead: each channel has one entry that nothing replaces, as opm asks for, and each entry has its bundle.
func TestOneHead(t *testing.T) {
	documents := released(t, "0.2.0", "0.1.0", "0.2.1-rc.1")
	bundles := map[string]bool{}
	for _, d := range documents {
		if d.Str("schema") == bundleSchema {
			bundles[d.Str("name")] = true
		}
	}
	for _, name := range []string{stable, preview} {
		channel := channelIn(t, documents, name)
		replaced := map[string]bool{}
		for entry, e := range channel {
			if !bundles[entry] {
				t.Errorf("%s has no bundle", entry)
			}
			if r := e.Str("replaces"); r != "" {
				if channel[r] == nil || replaced[r] {
					t.Errorf("%s: %s replaces %s, which is missing or replaced by another", name, entry, r)
				}
				replaced[r] = true
			}
		}
		if len(channel)-len(replaced) != 1 {
			t.Errorf("%s has %d heads", name, len(channel)-len(replaced))
		}
	}
	if len(bundles) != 3 {
		t.Errorf("bundles are %v", bundles)
	}
}

// TestPreReleaseAlone: where there are pre-releases only, users get the channel that has them.
func TestPreReleaseAlone(t *testing.T) {
	documents := released(t, "0.1.0-rc.1")
	if len(documents) != 3 || documents[0].Str("defaultChannel") != preview {
		t.Errorf("%d documents, default channel %s", len(documents), documents[0].Str("defaultChannel"))
	}
	got := fmt.Sprint(channelsOf(parsed(t, "0.1.0-rc.1")), channelsOf(parsed(t, "0.1.0")))
	if got != "[preview] [stable preview]" {
		t.Errorf("channels are %s", got)
	}
}

// TestFormerCatalogue: what isn't one is refused.
func TestFormerCatalogue(t *testing.T) {
	src, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for former, want := range map[string]string{
		"{": "the former catalogue", "schema: olm.bundle\npackage: fairway\nname: fairway.v1\n": "fairway.v1",
	} {
		if _, err := Catalog(src, "i", []byte(former)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", former, err)
		}
	}
}
