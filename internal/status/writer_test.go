// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/model"
)

// word is a report that says one condition; empty takes it back.
type word struct {
	uid  types.UID
	text string
}

// desk is a writer of Gateways, with its client.
type desk struct {
	t      *testing.T
	client client.Client
	writer *Writer[word, Timer]
	writes int
	fails  []error // of the next writes
	said   []bool
	ref    model.ObjectRef
}

func atDesk(t *testing.T, do func(*desk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{t: t, ref: model.ObjectRef{Kind: "Gateway", Namespace: "bookshop", Name: "web"}}
		s := runtime.NewScheme()
		require.NoError(t, gwv1.Install(s))
		g := &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "web", UID: "1"}}
		g.Status.Conditions = []metav1.Condition{{Type: "example.org/Theirs", Status: "True", Reason: "X"}}
		d.client = fake.NewClientBuilder().WithScheme(s).WithObjects(g).WithStatusSubresource(g).WithInterceptorFuncs(
			interceptor.Funcs{SubResourceUpdate: d.update}).Build()
		d.writer = NewWriter(d.client, logr.Discard(), Kinds[word, Timer]{
			New:     func(string) client.Object { return &gwv1.Gateway{} },
			UID:     func(w word) types.UID { return w.uid },
			Nothing: func(w word) bool { return w.text == "" },
			Render:  render,
			Said:    func(_ client.Object, _ word, _ *Timer, written bool) { d.said = append(d.said, written) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = d.writer.Start(ctx) }()
		do(d)
		cancel()
		<-ended
	})
}

// render says a report, but "later" only after a second.
func render(obj client.Object, w word, since *Timer) Plan {
	if left := since.Track(w.text == "later", time.Second); left > 0 {
		return Plan{Wait: true, Again: left}
	}
	g := obj.(*gwv1.Gateway)
	c := conditions.For(g.Generation, g.Status.Conditions)
	if w.text == "" {
		c.Remove("Said")
	} else {
		c.True("Said", "Said", w.text)
	}
	g.Status.Conditions = c.List()
	return Plan{}
}

func (d *desk) update(
	ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption,
) error {
	d.writes++
	if len(d.fails) > 0 {
		err := d.fails[0]
		d.fails = d.fails[1:]
		return err
	}
	return c.SubResource(sub).Update(ctx, o, opts...)
}

func (d *desk) report(w word) {
	d.writer.Report(d.ref, func(word) word { return w })
	synctest.Wait()
}

func (d *desk) says() string {
	g := &gwv1.Gateway{}
	require.NoError(d.t, d.client.Get(d.t.Context(), types.NamespacedName{Namespace: "bookshop", Name: "web"}, g))
	require.NotNil(d.t, conditions.For(0, g.Status.Conditions).Get("example.org/Theirs"))
	if c := conditions.For(0, g.Status.Conditions).Get("Said"); c != nil {
		return c.Message
	}
	return ""
}

func TestNothingIsWrittenTwiceAndConflictsAreTriedAgain(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.writer.Touch(d.ref)
		synctest.Wait()
		require.Zero(t, d.writes, "of what nobody reported nothing is known")

		d.fails = []error{apierrors.NewConflict(schema.GroupResource{Resource: "gateways"}, "web", nil)}
		d.report(word{"1", "hello"})
		require.False(t, d.writer.Cleared())
		time.Sleep(time.Second)
		require.Equal(t, "Hello.", d.says())
		require.Equal(t, 2, d.writes)

		d.report(word{"1", "hello"})
		d.writer.Touch(d.ref)
		synctest.Wait()
		require.Equal(t, 2, d.writes, "it says so already")
		require.Equal(t, []bool{true, false, false}, d.said)

		d.report(word{"1", ""})
		require.Empty(t, d.says())
		require.True(t, d.writer.Cleared())
	})
}

func TestAReportIsAboutOneObject(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.report(word{"2", "hello"})
		require.Zero(t, d.writes, "another object of the name")
		require.NoError(t, d.client.Delete(
			t.Context(), &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "web"}}))
		d.report(word{"2", ""})
		require.Empty(t, d.writer.reports, "nothing is kept of what is gone")
	})
}

// TestTheWritersOwnVersionIsNotLookedAt unless the writer has looked since, maybe at an older version.
func TestTheWritersOwnVersionIsNotLookedAt(t *testing.T) {
	atDesk(t, func(d *desk) {
		touch := func(version string) {
			d.writer.TouchVersion(d.ref, version)
			synctest.Wait()
		}
		touch("")
		require.Empty(t, d.said, "of what nobody reported nothing is known")
		d.report(word{"1", "hello"})
		g := &gwv1.Gateway{}
		require.NoError(t, d.client.Get(t.Context(), types.NamespacedName{Namespace: "bookshop", Name: "web"}, g))
		require.NotEmpty(t, g.ResourceVersion)
		touch(g.ResourceVersion)
		require.Equal(t, []bool{true}, d.said)
		touch("another")
		require.Equal(t, []bool{true, false}, d.said)
		touch(g.ResourceVersion)
		require.Equal(t, []bool{true, false, false}, d.said)
	})
}

func TestALookReplacesTheOneThatWasPlanned(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.report(word{"1", "later"})
		d.report(word{"1", "hello"})
		require.Equal(t, "Hello.", d.says())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []bool{true}, d.said)
	})
}

func TestWhatIsToWaitIsWrittenLater(t *testing.T) {
	atDesk(t, func(d *desk) {
		d.report(word{"1", "later"})
		require.Zero(t, d.writes)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, "Later.", d.says())
	})
}

// The API server merges what is sent, so nothing is sent but what changed, and for the one pod only.
func TestOfAPodOnlyTheConditionIsSent(t *testing.T) {
	s := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(s))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "web", UID: "1"}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: "True", ObservedGeneration: 7}}
	var sent []map[string]any
	c := fake.NewClientBuilder().WithScheme(s).WithObjects(pod).WithStatusSubresource(pod).WithInterceptorFuncs(
		interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch,
				opts ...client.SubResourcePatchOption,
			) error {
				data, err := p.Data(o)
				require.NoError(t, err)
				require.Equal(t, types.StrategicMergePatchType, p.Type())
				var body map[string]any
				require.NoError(t, json.Unmarshal(data, &body))
				sent = append(sent, body)
				return c.SubResource(sub).Patch(ctx, o, p, opts...)
			},
		}).Build()
	say := func(text string) bool {
		require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(pod), pod))
		changed, _, err := Write(t.Context(), c, pod, func(p *corev1.Pod) Plan {
			conditions.SetOfPod(p, "fairway.dev/Captured", "True", "Captured", text)
			return Plan{}
		})
		require.NoError(t, err)
		return changed
	}
	require.True(t, say("it is captured"))
	require.False(t, say("It is captured."))
	require.Len(t, sent, 1)
	require.Equal(t, map[string]any{"uid": "1"}, sent[0]["metadata"])
	list := sent[0]["status"].(map[string]any)["conditions"].([]any)
	require.Len(t, list, 1)
	require.NotContains(t, list[0], "observedGeneration")
	require.Equal(t, int64(7), conditions.OfPod(pod, corev1.PodReady).ObservedGeneration)
}
