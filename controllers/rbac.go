// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

// The operator's permissions, from which controller-gen makes config/rbac/role.yaml. No wildcards: each line is used by
// somebody. What the operator does in its own namespace only is a Role there.

// The mesh's own kinds.
// +kubebuilder:rbac:groups=fairway.dev,resources=meshes,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=fairway.dev,resources=meshes/status,verbs=update
// +kubebuilder:rbac:groups=fairway.dev,resources=meshes/finalizers,verbs=update
// +kubebuilder:rbac:groups=fairway.dev,resources=proxyparameters,verbs=get;list;watch

// The Gateway API: routes, policies and grants are read, statuses written; the class and automatic waypoints are made.
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=gatewayclasses,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=gateways,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=httproutes;grpcroutes;referencegrants;backendtlspolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=gatewayclasses/status;gateways/status;httproutes/status;grpcroutes/status;backendtlspolicies/status,verbs=update
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=gateways/finalizers,verbs=update
// +kubebuilder:rbac:groups=gateway.networking.x-k8s.io,resources=xmeshes;xbackendtrafficpolicies;xbackends,verbs=get;list;watch
// +kubebuilder:rbac:groups=gateway.networking.x-k8s.io,resources=xmeshes/status;xbackendtrafficpolicies/status;xbackends/status,verbs=update

// What the configuration of proxies is made from.
// +kubebuilder:rbac:groups="",resources=namespaces;nodes;pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=servicecidrs,verbs=get;list;watch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=get;list;watch

// Waypoints, in any namespace.
// +kubebuilder:rbac:groups="",resources=services;serviceaccounts;configmaps,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=services/status,verbs=patch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=apps,resources=replicasets,verbs=get;list;watch
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete

// Admission policies: these, and no others.
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=validatingadmissionpolicies;validatingadmissionpolicybindings,resourceNames=fairway-agents;fairway-labels,verbs=get;create;patch;delete

// Authentication of proxies, and Events.
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Certificates are watched wherever they are, for want of a narrower watch of a kind that may be missing; they hold no
// keys.
// +kubebuilder:rbac:groups=cert-manager.io,resources=certificates,verbs=get;list;watch

// The operator's own namespace: node proxies, CA, trust bundle, leader election.
// +kubebuilder:rbac:groups=apps,namespace=fairway-system,resources=daemonsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=fairway-system,resources=secrets,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups="",namespace=fairway-system,resources=configmaps,verbs=update
// +kubebuilder:rbac:groups="",namespace=fairway-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=cert-manager.io,namespace=fairway-system,resources=certificates,verbs=create;update;delete
// +kubebuilder:rbac:groups=cert-manager.io,namespace=fairway-system,resources=certificaterequests,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=fairway-system,resources=leases,verbs=get;create;update
