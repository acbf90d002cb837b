"""What other systems speak: MQTT, OPC UA, Modbus TCP. Each bridge is a process of its own."""
