#!/bin/bash
# DevStack plugin: `enable_plugin vnet-agent URL` and `enable_service vnet-agent vnet-controller`.

function install_vnet {
    local packages
    packages=$(sed -nE 's/^([a-z0-9][a-z0-9.+-]*) +\[compile\].*/\1/p' "$VNET_DIR/bindep.txt")
    # shellcheck disable=SC2086
    install_package $packages
    setup_develop "$VNET_DIR"
}

function configure_vnet {
    sudo install -d -o "$STACK_USER" "$VNET_CONF_DIR" /var/lib/vnet /run/vnet
    if is_service_enabled vnet-controller; then
        local conf=$VNET_CONF_DIR/controller.conf
        cp "$VNET_DIR/etc/controller.conf.sample" "$conf"
        iniset "$conf" DEFAULT listen_address "$SERVICE_LISTEN_ADDRESS"
        iniset "$conf" DEFAULT listen_port "$VNET_CONTROLLER_PORT"
        iniset "$conf" DEFAULT insecure True
    fi
    if is_service_enabled vnet-agent; then
        local conf=$VNET_CONF_DIR/agent.conf
        cp "$VNET_DIR/etc/agent.conf.sample" "$conf"
        iniset "$conf" DEFAULT host "$(hostname)"
        iniset "$conf" datapath uplinks "$VNET_UPLINKS"
        iniset "$conf" controller url "http://$SERVICE_HOST:$VNET_CONTROLLER_PORT"
        iniset "$conf" migration listen_address "$HOST_IP"
        iniset "$conf" migration insecure True
        sudo install -D -m 0755 "$VNET_DIR/etc/libvirt/hooks/qemu.d/vnet" \
            /etc/libvirt/hooks/qemu.d/vnet
    fi
}

function start_vnet {
    local bin
    bin=$(dirname "$(which vnet-controller)")
    if is_service_enabled vnet-controller; then
        run_process vnet-controller \
            "$bin/vnet-controller --config-file $VNET_CONF_DIR/controller.conf"
    fi
    if is_service_enabled vnet-agent; then
        run_process vnet-agent "$bin/vnet-agent --config-file $VNET_CONF_DIR/agent.conf" root root
    fi
}

if is_service_enabled vnet-agent || is_service_enabled vnet-controller; then
    case "$1 $2" in
        "stack install") install_vnet ;;
        "stack post-config") configure_vnet ;;
        "stack extra") start_vnet ;;
    esac
fi
if [[ "$1" == unstack ]]; then
    stop_process vnet-agent
    stop_process vnet-controller
fi
if [[ "$1" == clean ]]; then
    sudo rm -rf "$VNET_CONF_DIR" /var/lib/vnet /etc/libvirt/hooks/qemu.d/vnet
fi
