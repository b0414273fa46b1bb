// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// The snapshot is a header line and then one length-delimited DeltaDiscoveryResponse per type: its resources, as
// removed_resources the names known not to exist, and as system_version_info whether the wildcard was answered.
const (
	snapshotHeader = "fairway xds snapshot 2\n"
	// An agent of a version that adapts nothing must not take what was adapted; the other way round it may.
	snapshotUnadapted = "fairway xds snapshot 1\n"
	snapshotReady     = "ready"
	snapshotPause     = 500 * time.Millisecond // changes within it are written at once
	maxSnapshotType   = 1 << 30                // bytes of one type
)

// KeepSnapshot says whether the snapshot is written by this agent from now on.
func (r *Relay) KeepSnapshot(keep bool) {
	r.keeps.Store(keep)
	r.save.Set()
}

// saveForever writes the snapshot some time after changes, and a last time at the end.
func (r *Relay) saveForever(ctx context.Context) error {
	if r.opts.SnapshotPath == "" {
		return nil
	}
	for {
		select {
		case <-r.save:
		case <-ctx.Done():
			select {
			case <-r.save: // both were ready
			default:
				return ctx.Err()
			}
		}
		select {
		case <-time.After(snapshotPause):
		case <-ctx.Done():
		}
		if err := r.writeSnapshot(); err != nil {
			r.log.Error(err, "the snapshot is not written: a restarted agent will have to wait for the operator")
		}
	}
}

// writeSnapshot replaces the file atomically.
func (r *Relay) writeSnapshot() error {
	if !r.keeps.Load() {
		return nil
	}
	var buf bytes.Buffer
	buf.WriteString(snapshotHeader)
	for _, m := range r.capture() {
		if _, err := protodelim.MarshalTo(&buf, m); err != nil {
			return fmt.Errorf("encoding the snapshot: %w", err)
		}
	}
	if err := renameio.WriteFile(r.opts.SnapshotPath, buf.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the snapshot: %w", err)
	}
	return nil
}

// capture returns what is relayed, as it is served.
func (r *Relay) capture() []*discoveryv3.DeltaDiscoveryResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*discoveryv3.DeltaDiscoveryResponse
	for _, url := range slices.Sorted(maps.Keys(r.types)) {
		t, m := r.types[url], &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url}
		if t.ready {
			m.SystemVersionInfo = snapshotReady
		}
		for _, name := range slices.Sorted(maps.Keys(t.known)) {
			k := t.known[name]
			res := k.current
			if r.forgot(t.id(name)) {
				continue // if Envoy asks for it again, somebody dials it
			}
			if res != nil && k.rejected == res.Version() {
				res = k.good
				if res == nil {
					continue
				}
			}
			if res == nil {
				m.RemovedResources = append(m.RemovedResources, name)
				continue
			}
			m.Resources = append(m.Resources, &discoveryv3.Resource{Name: name, Version: res.Version(), Resource: res.Any()})
		}
		out = append(out, m)
	}
	return out
}

// restore loads the snapshot into the cache, all or nothing. What it holds stays subscribed until Envoy has had time to
// ask for it again. A missing file is no error.
func (r *Relay) restore() error {
	if r.opts.SnapshotPath == "" {
		return nil
	}
	data, err := os.ReadFile(r.opts.SnapshotPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("reading the snapshot: %w", err)
	}
	rest, ok := bytes.CutPrefix(data, []byte(snapshotHeader))
	if !ok {
		rest, ok = bytes.CutPrefix(data, []byte(snapshotUnadapted))
	}
	if !ok {
		return errors.New("the snapshot is of another version")
	}
	types := map[string]*relayed{}
	var updates []xds.Update
	for in := bufio.NewReader(bytes.NewReader(rest)); ; {
		m := &discoveryv3.DeltaDiscoveryResponse{}
		err := protodelim.UnmarshalOptions{MaxSize: maxSnapshotType}.UnmarshalFrom(in, m)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the snapshot is damaged: %w", err)
		}
		t, ups, err := r.restoreType(m, r.opts.Clock.Now())
		if err != nil {
			r.room, r.contexts, r.nowhere = newRoom(r.opts.MaxEndpoints, r.opts.MaxOnDemand), noContexts(), noNowhere()
			return fmt.Errorf("the snapshot is damaged: %w", err)
		}
		if r.local[m.GetTypeUrl()] {
			continue // made here by this version of the agent
		}
		types[t.typeURL] = t
		updates = append(updates, ups...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.types = types
	r.cache.Apply(scope, updates)
	for url, t := range types {
		if t.ready {
			r.cache.Ready(scope, url)
		}
	}
	return nil
}

func (r *Relay) restoreType(m *discoveryv3.DeltaDiscoveryResponse, now time.Time) (*relayed, []xds.Update, error) {
	t := newRelayed(m.GetTypeUrl())
	if t.ready = m.GetSystemVersionInfo() == snapshotReady; t.ready {
		t.subscribed[xds.Wildcard] = now
	}
	resources, err := r.unwrap(m)
	if err != nil {
		return nil, nil, err
	}
	var updates []xds.Update
	for _, res := range resources {
		res = r.limitEndpoints(res, map[string]bool{}) // clusters come first, so there is nothing to fit
		r.noteContexts(res, nil, time.Time{})          // Envoy may have run on
		t.known[res.Name()] = &known{current: res, good: res}
		updates = append(updates, xds.Set(res))
		if !t.ready {
			t.subscribed[res.Name()] = now
			r.restoreAddress(t.id(res.Name()))
			r.noteNowhere(res, now)
		}
	}
	for _, name := range m.GetRemovedResources() {
		t.known[name] = &known{}
		t.subscribed[name] = now
		r.restoreAddress(t.id(name))
	}
	return t, updates, nil
}

// restoreAddress notes what Envoy has, or is about to ask for.
func (r *Relay) restoreAddress(id xds.ID) {
	if isAddress(id) {
		r.room.hold(id.Name)
	}
}
