// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

func TestARouteMakesAWaypointAppearAndGo(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.versions("app")
	s.captured("client", "app-v1", "app-v2")
	gateway := &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: names.AutomaticWaypoint}}
	require.True(t, apierrors.IsNotFound(world.client.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway)),
		"no route, no waypoint")
	eventually.Passes(t, "the node has the way straight there", func(look require.TestingT) {
		require.Positive(look, s.many("client", 20, "http://app/").of("app-v2"))
	})

	route := httpRoute("app", toService("app"), rule(withHeader("x-beta", "yes"), backend("app-v2")),
		rule(nil, backend("app-v1")))
	s.create(route)
	s.programmed("app")
	require.Equal(t, 30, s.many("client", 30, "http://app/").of("app-v1"), "Programmed is true for callers, at once")
	require.Equal(t, 10, s.many("client", 10, "http://app/", "-H", "x-beta:yes").of("app-v2"))
	a, err := s.get("client", "http://app/")
	require.NoError(t, err)
	require.Contains(t, a.Headers.Get("X-Forwarded-Client-Cert"),
		"URI="+identityOf(s, "client"), "the application learns who calls")

	// Without its Gateway the Service is closed, until the operator has made another one that serves.
	steady := s.steady("client", "http://app/")
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway))
	former := gateway.UID
	require.NoError(t, world.client.Delete(t.Context(), gateway))
	eventually.Passes(t, "another Gateway that has served", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway))
		require.NotEqual(look, former, gateway.UID)
		require.True(look, meta.IsStatusConditionTrue(gateway.Status.Conditions, v1alpha1.GatewayConditionEstablished))
	})
	s.routed("client", "http://app/", "app-v1")
	total := steady.end()
	require.Positive(t, total.of("app-v1"))
	require.Zero(t, total.of("app-v2"), "nothing goes around the route meanwhile: %v", total)

	require.NoError(t, world.client.Delete(t.Context(), route))
	eventually.Passes(t, "answers without the route", func(look require.TestingT) {
		got := s.many("client", 20, "http://app/")
		require.Empty(look, got.failures())
		require.Positive(look, got.of("app-v2"), "%v", got)
	})
	linger := controllers.DefaultAutomaticLinger + time.Minute
	eventually.PassesWithin(t, linger, "the last route takes the waypoint along", func(look require.TestingT) {
		require.True(look, apierrors.IsNotFound(world.client.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway)))
	})
}

func TestEditingARouteLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.versions("app")
	s.captured("client", "app-v1", "app-v2")
	s.create(httpRoute("app", toService("app"), rule(nil, backend("app-v1"))))
	s.programmed("app")
	s.routed("client", "http://app/", "app-v1")

	steady := s.steady("client", "http://app/")
	for _, to := range []string{"app-v2", "app-v1", "app-v2"} {
		s.reroute("app", to)
		s.programmed("app")
		eventually.Passes(t, fmt.Sprintf("%s after the route is programmed", to), func(look require.TestingT) {
			require.Equal(look, 5, s.many("client", 5, "http://app/").of(to))
		})
	}
	total := steady.end()
	require.Empty(t, total.failures(), "of %v", total)
}

func TestConsumerRouteConcernsItsOwnNamespaceOnly(t *testing.T) {
	t.Parallel()
	producer, consumer, other := enrolled(t), enrolled(t), enrolled(t)
	producer.versions("app")
	consumer.client("client")
	other.client("client")
	producer.captured("app-v1", "app-v2")
	consumer.captured("client")
	other.captured("client")

	parent, ns := toService("app"), gwv1.Namespace(producer.name)
	parent.Namespace = &ns
	route := httpRoute("mine", parent, rule(nil, backendIn(producer.name, "app-v2")))
	consumer.create(route)
	// A consumer's route may only lead where the producer lets it.
	consumer.says("mine", string(gwv1.RouteConditionResolvedRefs), metav1.ConditionFalse,
		string(gwv1.RouteReasonRefNotPermitted))
	producer.grant(consumer.name)
	consumer.says("mine", string(gwv1.RouteConditionResolvedRefs), metav1.ConditionTrue, "")
	consumer.programmed("mine")
	url := "http://" + producer.host("app") + "/"
	consumer.routed("client", url, "app-v2")
	// While nobody else asks for the waypoint, nobody else goes through it.
	for range 5 {
		a, err := other.get("client", url)
		require.NoError(t, err)
		require.NotContains(t, a.Headers, "X-Forwarded-Client-Cert")
	}

	producer.create(httpRoute("app", toService("app"), rule(nil, backend("app-v1"))))
	producer.programmed("app")
	for s, want := range map[*space]string{consumer: "app-v2", other: "app-v1"} {
		require.Equal(t, 10, s.many("client", 10, url).of(want), "Programmed is true for callers of %s, at once", s.name)
	}
}

func TestStrictModeRefusesPlaintextAndKeepsProbes(t *testing.T) {
	t.Parallel()
	s, outside := enrolled(t, names.LabelMTLSMode, names.MTLSStrict), newSpace(t)
	outside.client("stranger")
	s.client("client")
	// Ready under strict mode from its first moment: kubelet's probes have no certificate.
	s.server("server", spec(func(p *corev1.PodSpec) {
		http := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}
		p.Containers[0].StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30, ProbeHandler: tcpProbe("http")}
		p.Containers[0].ReadinessProbe.ProbeHandler = corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}
		p.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, ProbeHandler: http}
	}))
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	for _, url := range []string{"http://" + s.host("server") + "/", "http://" + s.pod("server").Status.PodIP + ":8080/"} {
		outside.refuses("stranger", url)
	}

	// The strictest label wins where it stands closest: this pod says permissive.
	s.server("open", podLabel(names.LabelMTLSMode, names.MTLSPermissive))
	s.service("open", "open")
	s.captured("open")
	outside.answers("stranger", "http://"+s.host("open")+"/", "open")

	pod := s.pod("server")
	require.Zero(t, pod.Status.ContainerStatuses[0].RestartCount)
	require.True(t, pod.Status.ContainerStatuses[0].Ready)
}

// reachedInPlaintext makes a server in the mesh, in permissive mode, and a pod "stranger" outside that reaches it at
// the URL.
func reachedInPlaintext(t *testing.T) (s, outside *space, url string) {
	t.Helper()
	s, outside = enrolled(t), newSpace(t)
	outside.client("stranger")
	s.server("server")
	s.service("server", "server")
	s.captured("server")
	url = "http://" + s.host("server") + "/"
	outside.answers("stranger", url, "server")
	return s, outside, url
}

// Changing the mode of running pods takes effect on running pods.
func TestStrictModeIsSwitchedOnAndOff(t *testing.T) {
	t.Parallel()
	s, outside, url := reachedInPlaintext(t)
	s.label(names.LabelMTLSMode, names.MTLSStrict)
	outside.refuses("stranger", url)
	s.label(names.LabelMTLSMode, "")
	outside.answers("stranger", url, "server")
}

func TestExplicitWaypoint(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.gateway("mine")
	s.service("server", "server",
		through("mine"))
	s.captured("client", "server")
	eventually.Passes(t, "an answer through the waypoint", func(look require.TestingT) {
		a, err := s.get("client", "http://server/")
		require.NoError(look, err)
		require.Equal(look, http.StatusOK, a.Status)
		require.NotEmpty(look, a.Headers.Get("X-Forwarded-Client-Cert"), "it goes through the waypoint, route or not")
	})
}

// A Service that joins a waypoint that serves others already is not interrupted, neither for those who know its address
// nor for those who dial it for the first time just then.
func TestAFurtherServiceJoinsAWaypointUnderTraffic(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.client("newcomer")
	for _, name := range []string{"first", "second"} {
		s.server(name)
		s.service(name, name)
	}
	s.captured("client", "newcomer", "first", "second")
	s.create(httpRoute("first", toService("first"), rule(nil, backend("first"))))
	s.programmed("first")
	s.answers("client", "http://second/", "second")

	steady := s.steady("client", "http://second/")
	s.create(httpRoute("second", toService("second"), rule(nil, backend("second"))))
	total := s.many("newcomer", 20, "http://second/")
	s.programmed("second")
	a, err := s.get("client", "http://second/")
	require.NoError(t, err)
	require.NotEmpty(t, a.Headers.Get("X-Forwarded-Client-Cert"), "Programmed is true for callers, at once")
	known := steady.end()
	require.Empty(t, known.failures(), "of those who know the Service: %v", known)
	require.Empty(t, total.failures(), "of those who are new: %v", total)
}
