// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"path"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Waypoint is what a waypoint's infrastructure is made from.
type Waypoint struct {
	Control
	// Gateway that asks for the waypoint.
	Gateway *gwv1.Gateway
	// Parameters as MergeParameters left them.
	Parameters v1alpha1.ProxyParametersSpec
	// TrustBundle is the PEM with which the pods verify the operator, unless SPIRE gives them that.
	TrustBundle string
	// Nodes is how many of the cluster's nodes may run the waypoint; see NodesFor.
	Nodes int
	// SendBuffers says whether the namespace's pods may choose how large the buffers of sockets are; see SendBuffers.
	SendBuffers bool
}

// WaypointSelector selects the pods of a waypoint.
func WaypointSelector(gateway string) map[string]string {
	return map[string]string{names.LabelGatewayName: gateway}
}

// TrustBundleName is the ConfigMap beside a waypoint that holds the trust bundle.
func TrustBundleName(gateway string) string { return gateway + "-" + names.TrustBundleConfigMap }

// Objects are the objects of the waypoint, in the order to apply them. All are named after the Gateway and carry its
// infrastructure labels and annotations (GEP-1867), which never override the operator's own.
func (w Waypoint) Objects() []client.Object {
	out := []client.Object{w.serviceAccount()}
	if w.SPIRE == nil {
		out = append(out, w.trustBundle())
	}
	out = append(out, w.service(), w.deployment(), w.disruptionBudget())
	if hpa := w.autoscaler(); hpa != nil {
		out = append(out, hpa)
	}
	return out
}

// Autoscaled says whether the waypoint has a HorizontalPodAutoscaler.
func (w Waypoint) Autoscaled() bool { return w.Parameters.Replicas == nil }

// MinReplicas is the least number of replicas that the autoscaler keeps.
func (w Waypoint) MinReplicas() int32 { return w.autoscaling().MinReplicas }

// replicasOfMany is the least number of proxies of a waypoint that more than one node may run.
const replicasOfMany = 2

// autoscaling as the parameters say. Where they say nothing, a waypoint outlives any one of its nodes, if there is
// another that may run it: two proxies on one node would cost twice as much, and go together.
func (w Waypoint) autoscaling() v1alpha1.Autoscaling {
	a := v1alpha1.Autoscaling{}
	switch {
	case w.Parameters.Autoscaling != nil:
		a = *w.Parameters.Autoscaling
	case w.Nodes > 1:
		a.MinReplicas = replicasOfMany
	}
	a.SetDefaults()
	return a
}

func (w Waypoint) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:        name,
		Namespace:   w.Gateway.Namespace,
		Labels:      w.labels(),
		Annotations: w.infrastructureAnnotations(),
	}
}

func (w Waypoint) labels() map[string]string {
	infrastructure := map[string]string{}
	if i := w.Gateway.Spec.Infrastructure; i != nil {
		for k, v := range i.Labels {
			infrastructure[string(k)] = string(v)
		}
	}
	return merged(infrastructure, WaypointSelector(w.Gateway.Name), map[string]string{
		"gateway.networking.k8s.io/gateway-class-name": string(w.Gateway.Spec.GatewayClassName),
		"app.kubernetes.io/name":                       "fairway",
		names.LabelComponent:                           names.ComponentWaypoint,
		names.LabelManagedBy:                           names.ManagedBy,
	})
}

func (w Waypoint) infrastructureAnnotations() map[string]string {
	i := w.Gateway.Spec.Infrastructure
	if i == nil || len(i.Annotations) == 0 {
		return nil
	}
	out := make(map[string]string, len(i.Annotations))
	for k, v := range i.Annotations {
		out[string(k)] = string(v)
	}
	return out
}

func (w Waypoint) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta:                     metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta:                   w.meta(w.Gateway.Name),
		AutomountServiceAccountToken: new(false),
	}
}

func (w Waypoint) trustBundle() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: w.meta(TrustBundleName(w.Gateway.Name)),
		Data:       map[string]string{names.TrustBundleKey: w.TrustBundle},
	}
}

func (w Waypoint) service() *corev1.Service {
	var distribution *string
	if d := w.Parameters.TrafficDistribution; d != "" {
		distribution = &d
	}
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: w.meta(w.Gateway.Name),
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeClusterIP,
			Selector: WaypointSelector(w.Gateway.Name),
			// What EndpointSlices say because of it, node proxies go by.
			TrafficDistribution: distribution,
			Ports: []corev1.ServicePort{{
				Name: "mtls", Port: names.PortMTLS, TargetPort: intstr.FromInt32(names.PortMTLS),
				Protocol: corev1.ProtocolTCP, AppProtocol: new(names.Domain + "/mtls"),
			}},
		},
	}
}

func (w Waypoint) disruptionBudget() *policyv1.PodDisruptionBudget {
	spec := policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: WaypointSelector(w.Gateway.Name)},
		// A proxy that does not serve is no loss; by default it would keep its node from being drained.
		UnhealthyPodEvictionPolicy: new(policyv1.AlwaysAllow),
	}
	if b := w.Parameters.DisruptionBudget; b != nil {
		spec.MinAvailable, spec.MaxUnavailable = b.MinAvailable, b.MaxUnavailable
	} else {
		// Not minAvailable: with one replica that would keep its node from ever being drained.
		spec.MaxUnavailable = new(intstr.FromInt32(1))
	}
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: w.meta(w.Gateway.Name),
		Spec:       spec,
	}
}

// autoscaler scales by the proxy's own CPU: the agent's idle share would hide its load. It is nil with fixed replicas.
func (w Waypoint) autoscaler() *autoscalingv2.HorizontalPodAutoscaler {
	if !w.Autoscaled() {
		return nil
	}
	a := w.autoscaling()
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		ObjectMeta: w.meta(w.Gateway.Name),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
				APIVersion: "apps/v1", Kind: "Deployment",
				Name: w.Gateway.Name,
			},
			MinReplicas: new(a.MinReplicas),
			MaxReplicas: a.MaxReplicas,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ContainerResourceMetricSourceType,
				ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
					Name: corev1.ResourceCPU, Container: containerEnvoy,
					Target: autoscalingv2.MetricTarget{
						Type:               autoscalingv2.UtilizationMetricType,
						AverageUtilization: new(a.TargetCPU),
					},
				},
			}},
			// Scaling down closes connections, so a short lull must not do it.
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{
				StabilizationWindowSeconds: new(int32(300)),
				Policies: []autoscalingv2.HPAScalingPolicy{
					{Type: autoscalingv2.PercentScalingPolicy, Value: 25, PeriodSeconds: 60},
				},
			}},
		},
	}
}

func (w Waypoint) deployment() *appsv1.Deployment {
	p := &w.Parameters
	drainSeconds, graceSeconds := drain(p)
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: w.meta(w.Gateway.Name),
		Spec: appsv1.DeploymentSpec{
			// Without a fixed number the field is the autoscaler's, and applying one would undo its work.
			Replicas: p.Replicas,
			Selector: &metav1.LabelSelector{MatchLabels: WaypointSelector(w.Gateway.Name)},
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{
					MaxUnavailable: new(intstr.FromInt32(0)), MaxSurge: new(intstr.FromString("25%")),
				},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					// A waypoint speaks mTLS itself: captured, it would go through a node proxy in turn.
					Labels: merged(p.PodLabels, w.labels(), map[string]string{names.LabelMesh: names.MeshDisabled}),
					Annotations: merged(p.PodAnnotations, w.infrastructureAnnotations(),
						podAnnotations(containerEnvoy, names.PortAgent, corev1.URISchemeHTTP)),
				},
				Spec: w.podSpec(drainSeconds, graceSeconds),
			},
		},
	}
}

func (w Waypoint) podSpec(drainSeconds, graceSeconds int64) corev1.PodSpec {
	p := &w.Parameters
	return corev1.PodSpec{
		ServiceAccountName:            w.Gateway.Name,
		ImagePullSecrets:              p.Images.PullSecretsOr(w.PullSecrets),
		AutomountServiceAccountToken:  new(false),
		NodeSelector:                  nodeSelector(*p),
		Tolerations:                   p.Tolerations,
		Affinity:                      w.affinity(),
		TopologySpreadConstraints:     w.topologySpread(),
		PriorityClassName:             p.PriorityClassName,
		TerminationGracePeriodSeconds: new(graceSeconds),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(nonRoot), RunAsGroup: new(nonRoot), FSGroup: new(nonRoot),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			Sysctls:        w.sysctls(),
		},
		InitContainers: []corev1.Container{w.bootstrap()},
		Containers:     []corev1.Container{w.envoy(drainSeconds), w.agent(drainSeconds)},
		Volumes:        w.volumes(),
	}
}

func (w Waypoint) volumes() []corev1.Volume {
	out := append([]corev1.Volume{runVolume()},
		w.agentVolumes(TrustBundleName(w.Gateway.Name), tokenLifetimeSeconds)...)
	if w.SPIRE != nil {
		out = append(out, spireVolume())
	}
	return out
}

// affinity keeps the proxies apart, unless the parameters say otherwise. The scheduler counts no topology spread on
// nodes that lack one of its labels, such as that of a zone.
func (w Waypoint) affinity() *corev1.Affinity {
	if w.Parameters.Affinity != nil {
		return w.Parameters.Affinity
	}
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey:    corev1.LabelHostname,
				LabelSelector:  &metav1.LabelSelector{MatchLabels: WaypointSelector(w.Gateway.Name)},
				MatchLabelKeys: []string{appsv1.DefaultDeploymentUniqueLabelKey},
			},
		}},
	}}
}

func (w Waypoint) topologySpread() []corev1.TopologySpreadConstraint {
	constraints := w.Parameters.TopologySpreadConstraints
	if constraints == nil {
		constraints = spread()
	}
	out := make([]corev1.TopologySpreadConstraint, 0, len(constraints))
	for i := range constraints {
		c := *constraints[i].DeepCopy()
		if c.LabelSelector == nil {
			c.LabelSelector = &metav1.LabelSelector{MatchLabels: WaypointSelector(w.Gateway.Name)}
		}
		out = append(out, c)
	}
	return out
}

// podFlags tell the agent who it is.
func (w Waypoint) podFlags() []string {
	return []string{"--gateway=" + w.Gateway.Name, "--namespace=$(POD_NAMESPACE)", "--pod-name=$(POD_NAME)"}
}

func podEnv() []corev1.EnvVar {
	return []corev1.EnvVar{
		fieldEnv("POD_NAME", "metadata.name"),
		fieldEnv("POD_NAMESPACE", "metadata.namespace"),
		fieldEnv("POD_IP", "status.podIP"),
	}
}

func (w Waypoint) bootstrap() corev1.Container {
	return corev1.Container{
		Name:                     containerBootstrap,
		Image:                    w.Image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     append([]string{"agent", "bootstrap", "waypoint", memoryFlag}, w.podFlags()...),
		Env:                      append(podEnv(), memoryEnv()),
		Resources:                resources("10m", "32Mi", "128Mi"),
		VolumeMounts:             []corev1.VolumeMount{runMount()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          restricted(),
	}
}

func (w Waypoint) agent(drainSeconds int64) corev1.Container {
	args := append([]string{"agent", "waypoint"}, w.podFlags()...)
	args = append(args, "--pod-ip=$(POD_IP)", "--service-account="+w.Gateway.Name)
	args = append(args, w.operatorFlags()...)
	args = append(args, fmt.Sprintf("--drain-timeout=%ds", drainSeconds))
	mounts := w.agentMounts()
	if s := w.SPIRE.DeepCopy(); s != nil {
		s.SetDefaults()
		args = append(args, "--spire-workload-socket="+path.Join(names.SPIREDir, s.WorkloadSocket))
		mounts = append(mounts, corev1.VolumeMount{Name: volumeSPIRE, MountPath: names.SPIREDir, ReadOnly: true})
	}
	agent := corev1.Container{
		Name:            containerAgent,
		Image:           w.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Args:            args,
		Env:             podEnv(),
		Ports: []corev1.ContainerPort{
			{Name: "metrics", ContainerPort: names.PortAgent, Protocol: corev1.ProtocolTCP},
		},
		Resources:                orDefault(w.Parameters.AgentResources, resources("10m", "32Mi", "512Mi")),
		VolumeMounts:             mounts,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          restricted(),
	}
	setProbes(&agent)
	return agent
}

// quiet keeps out of the log that Envoy's filters of clusters have no caller to look at, for each request that a
// waypoint makes itself: to a rate limit service, or an authorization service.
func quiet(level v1alpha1.LogLevel) []string {
	switch level {
	case "", "info", "warning":
		return []string{"--component-log-level", bootstrap.ComponentLogLevel}
	}
	return nil // those who want less have it, and those who want more are looking for something
}

// escaped keeps lines of the log whole: modules of HTTPExtensions write what they like, and nobody is to take it for a
// line of Envoy's, nor for one of the access log.
const escaped = "--log-format-escaped"

// envoy keeps running after the pod is told to go, until the agent, which hears of it at once, has drained it
// (agent.Drain), and callers have moved on: for the drain timeout at most.
func (w Waypoint) envoy(drainSeconds int64) corev1.Container {
	c := corev1.Container{
		Name:            containerEnvoy,
		Image:           w.Parameters.Images.EnvoyOr(w.EnvoyImage),
		ImagePullPolicy: corev1.PullIfNotPresent,
		Args: append(append(envoyArgs(w.Parameters.LogLevel, w.Parameters.Concurrency, max(drainSeconds, 1)), escaped),
			quiet(w.Parameters.LogLevel)...),
		Ports: []corev1.ContainerPort{
			{Name: "mtls", ContainerPort: names.PortMTLS, Protocol: corev1.ProtocolTCP},
		},
		Resources:                orDefault(w.Parameters.Resources, resources("100m", "128Mi", "2Gi")),
		VolumeMounts:             []corev1.VolumeMount{runMount()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          restricted(),
	}
	if drainSeconds > 0 {
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: pathDrained, Port: intstr.FromInt32(names.PortAgent), Scheme: corev1.URISchemeHTTP,
		}}}
	}
	return c
}
