// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestWhoComesInPlainText is shown by workload, as the replica tells that has counted for longest.
func TestWhoComesInPlainText(t *testing.T) {
	answer := func(since time.Time, callers ...counts.Stranger) string {
		data, err := json.Marshal(introspect.Plaintext{Since: since, Callers: callers})
		require.NoError(t, err)
		return string(data)
	}
	db, web := counts.Workload{Namespace: "shop", Name: "db"}, counts.Workload{Namespace: "shop", Name: "web"}
	long := []counts.Stranger{
		{Workload: db, From: counts.Origin{Kind: counts.OriginOutside}, Refused: 7},
		{Workload: web, From: counts.Origin{Kind: counts.OriginPod, Namespace: "legacy"}, LetIn: 120, Refused: 1},
		{Workload: web, From: counts.Origin{Kind: counts.OriginMember, Namespace: "shop"}, LetIn: 4},
		{Workload: web, From: counts.Origin{Kind: counts.OriginNode}, LetIn: 3},
		{Workload: web, From: counts.Origin{Kind: counts.OriginOthers}, LetIn: 2},
	}
	for n := range mostPlain {
		to := counts.Workload{Namespace: "z", Name: fmt.Sprintf("w%02d", n)}
		long = append(long, counts.Stranger{Workload: to, LetIn: 1})
	}
	pods := operators(t, inSync()...)
	pods[names.SystemNamespace+"/operator-1"+introspect.PathPlaintext] = answer(testNow.Add(-time.Hour), long...)
	r := collect(t.Context(), fakeCluster(t, pods, healthyMesh()...), names.SystemNamespace)
	assert.True(t, r.Healthy, "%v %v", r.Problems, r.Unknown)
	var out bytes.Buffer
	r.drawPlaintext(&table{out: &out}, testNow)
	lines := strings.Split(out.String(), "\n")
	require.Equal(t, []string{
		"", "Connections without identity in the last hour:",
		"  shop/db refuses: outside 7",
		"  shop/web takes plain text from: namespace legacy 120, namespace shop (in the mesh) 4, hostNetwork or a node 3, " +
			"many others 2; refuses: namespace legacy 1",
	}, lines[:4])
	require.Contains(t, out.String(), "and 2 workloads more")
	require.Len(t, r.Plaintext.Callers, len(long))
}
